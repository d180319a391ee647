"""A report's verdict: one sentence, built from the run's numbers. It states no opinion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proofloop.config.run_file import RunSpec
from proofloop.engine import find_engine
from proofloop.report.data import ReportData, Summary
from proofloop.report.numbers import NBSP, count, share
from proofloop.report.titles import FIGURES, HEADLINE, FigureTexts
from proofloop.runs.figures import Figure
from proofloop.schema.records import MODEL_ROLES


@dataclass(frozen=True)
class Change:
    """The change of one figure. `clear`: the 95 % intervals do not overlap."""

    figure: FigureTexts
    before: Figure
    after: Figure

    @property
    def difference(self) -> float | None:
        if self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value

    @property
    def verb(self) -> str:
        if show(self.figure, self.before.value) == show(self.figure, self.after.value):
            return "stayed"
        return "rose" if (self.difference or 0) > 0 else "fell"

    @property
    def clear(self) -> bool:
        low, high = sorted((self.before, self.after), key=lambda measured: measured.value or 0)
        return low.high is not None and high.low is not None and low.high < high.low

    @property
    def judgement(self) -> str:
        """ "better" or "worse" if the change is clear, else "unclear"."""
        if self.difference is None or not self.clear:
            return "unclear"
        return "better" if (self.difference < 0) == self.figure.lower_is_better else "worse"


def changes(summary: Summary) -> list[Change]:
    """The figures that were measured before and after, in the order of FIGURES."""
    return [
        Change(figure, summary.before[figure.name], summary.after[figure.name])
        for figure in FIGURES
        if figure.name in summary.before and figure.name in summary.after
    ]


def verdict(data: ReportData) -> str:
    """The result of the run in one sentence, built from its numbers."""
    if data.summary and (moved := headline(data.summary)):
        return sentence(moved)
    return sentence(_rehearsal(data.spec) + _labels_clause(data))


def _rehearsal(spec: RunSpec) -> str:
    """A clause that names the roles with a simulated engine; empty if there are none."""
    simulated = [role for role in MODEL_ROLES if _is_simulated(spec.engine.of(role).kind)]
    if not simulated:
        return ""
    answers = "all answers"
    if len(simulated) < len(MODEL_ROLES):
        answers = f"the answers of the {_join(simulated)}"
    return f"a rehearsal with {answers} from the simulated engine: "


def _is_simulated(kind: str) -> bool:
    info = find_engine(kind)
    return info is not None and info.is_simulated


def headline(summary: Summary) -> str:
    """A clause with the changes of the HEADLINE figures and of those clearly worse; empty if there
    are none.
    """
    measured = [change for change in changes(summary) if change.difference is not None]
    named = [change for change in measured if change.figure.name in HEADLINE]
    named += [change for change in measured if change not in named and change.judgement == "worse"]
    return _join([_clause(change) for change in named]) if named else ""


def _clause(change: Change) -> str:
    before = show(change.figure, change.before.value)
    after = show(change.figure, change.after.value)
    if change.verb == "stayed":
        return f"{change.figure.subject} stayed at {after}"
    overlap = "" if change.clear else f" (their 95{NBSP}% intervals overlap)"
    return f"{change.figure.subject} {change.verb} from {before} to {after}{overlap}"


def _labels_clause(data: ReportData) -> str:
    labeled = data.costs.labeled_proofs
    proofs = data.costs.proofs
    if proofs == 0:
        return "no proof is written yet"
    if labeled == 0:
        return f"no label yet: {count(proofs)} of {_planned(data)} are written"
    if data.kinds["graded"] == labeled:
        return f"{count(labeled)} of {_planned(data)} that were given or checked have their grade"
    accepted = data.kinds["accepted"] + data.kinds["overturned"]
    progress = ""
    if data.planned != labeled:
        progress = f", with {count(labeled)} of {_planned(data)} labeled so far"
    problems = (
        f"{count(data.costs.accepted_problems)} of {count(data.costs.problems)} problems have a"
        " proof labeled 1"
    )
    return (
        f"{problems}, and {share(accepted / labeled)} of all labeled proofs have label 1{progress}"
    )


def _planned(data: ReportData) -> str:
    return f"{count(data.costs.proofs if data.planned is None else data.planned)} proofs"


def _join(clauses: Sequence[str]) -> str:
    """The clauses as a list in a sentence: "a, b and c"."""
    if len(clauses) < 2:
        return "".join(clauses)
    return f"{', '.join(clauses[:-1])} and {clauses[-1]}"


def sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}."


def show(figure: FigureTexts, value: float | None) -> str:
    """A figure's value: a share in per cent, another figure with two decimals."""
    if value is None:
        return "not measured"
    return share(value) if figure.is_share else f"{value:.2f}"


def interval(figure: FigureTexts, measured: Figure) -> str:
    """The figure's interval as `48 to 56 %`; empty if there is none."""
    if measured.low is None or measured.high is None:
        return ""
    return f"{show(figure, measured.low).removesuffix(f'{NBSP}%')} to {show(figure, measured.high)}"
