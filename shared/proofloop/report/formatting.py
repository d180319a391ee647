"""The texts of the report: titles and meanings of its figures, formatted numbers, and the verdict.

Sentences are built from numbers and state no opinion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from proofloop.config.run_file import RunSpec
from proofloop.engine import find_engine
from proofloop.method.domains import Defect
from proofloop.report.data import Measured, ReportData, Summary
from proofloop.schema.records import MODEL_ROLES, LabelKind

NBSP = "\N{NO-BREAK SPACE}"
MINUTE_S, HOUR_S = 60, 3600


@dataclass(frozen=True)
class Figure:
    """A measured figure: its name in records, its title in tables, its name as a sentence's
    subject, its meaning.
    """

    name: str
    title: str
    subject: str
    meaning: str
    lower_is_better: bool = False
    is_share: bool = True


FIGURES = (
    Figure(
        "pass_at_1",
        "Pass@1",
        "Pass@1",
        "share of proofs that are complete and right by the exact checker",
    ),
    Figure(
        "self_eval_error",
        "Self-evaluation error",
        "the self-evaluation's error",
        "mean distance between a proof's self-score and its true score, from 0 to 1",
        lower_is_better=True,
        is_share=False,
    ),
    Figure(
        "verifier_accuracy",
        "Verifier accuracy",
        "the verifier's accuracy",
        "share of critiques that give a proof its true score",
    ),
    Figure(
        "verifier_faithfulness",
        "Verifier faithfulness",
        "the verifier's faithfulness",
        "share of right-scored critiques of flawed proofs that name the true step and kind of flaw",
    ),
    Figure(
        "label_agreement",
        "Label agreement",
        "label agreement",
        "share of labels that equal the true score",
    ),
    Figure(
        "label_undecided",
        "Labels undecided",
        "the share of undecided labels",
        "share of proofs that the labeling rule could not decide",
        lower_is_better=True,
    ),
)
HEADLINE = ("pass_at_1", "verifier_accuracy")
"""The figures that the verdict always names; it names others only if they became clearly worse."""

KIND_TITLES: dict[LabelKind, str] = {
    "accepted": "accepted",
    "rejected_upheld": "rejected, upheld",
    "overturned": "overturned",
    "undecided": "undecided",
    "unreadable": "unreadable",
    "graded": "graded",
}
KIND_MEANINGS: dict[LabelKind, str] = {
    "accepted": "no critique found an issue: label 1",
    "rejected_upheld": (
        "enough critiques found an issue and the meta-verifier confirmed them: label 0 or 0.5"
    ),
    "overturned": "critiques found issues, but the meta-verifier confirmed none of them: label 1",
    "undecided": "the critiques contradict each other: no label until a person decides",
    "unreadable": "the answer does not have the required format and was not reviewed",
    "graded": "the grade was given with the proof or analysis, or is the exact checker's",
}
PART_TITLES = {
    "format": "format",
    "score": "score",
    "meta": "quality",
    "proof": "proof score",
    "self_score": "self-score",
    "self_meta": "self-quality",
    "predicted_score": "predicted score",
}


@dataclass(frozen=True)
class Change:
    """The change of one figure. `clear`: the 95 % intervals do not overlap."""

    figure: Figure
    before: Measured
    after: Measured

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


def show(figure: Figure, value: float | None) -> str:
    """A figure's value: a share in per cent, another figure with two decimals."""
    if value is None:
        return "not measured"
    return share(value) if figure.is_share else f"{value:.2f}"


def interval(figure: Figure, measured: Measured) -> str:
    """The figure's interval as `48 to 56 %`; empty if there is none."""
    if measured.low is None or measured.high is None:
        return ""
    return f"{show(figure, measured.low).removesuffix(f'{NBSP}%')} to {show(figure, measured.high)}"


def share(value: float) -> str:
    """A share as `52 %`; with one decimal if it would otherwise be rounded to 0 or 100 %."""
    percent = 100 * value
    digits = 1 if 0 < percent < 1 or 99 < percent < 100 else 0
    return f"{percent:.{digits}f}{NBSP}%"


def count(value: float) -> str:
    """A number with separated thousands; from a million on as `1.23 million`. A small mean has one
    decimal.
    """
    if value >= 1e9:
        return f"{value / 1e9:,.2f}{NBSP}billion"
    if value >= 1e6:
        return f"{value / 1e6:,.2f}{NBSP}million"
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}"


def money(value: float) -> str:
    """An amount with two decimals; an amount below one with two significant digits."""
    if value >= 1 or value == 0:
        return f"{value:,.2f}"
    return f"{value:.{max(2, 1 - math.floor(math.log10(value)))}f}"


def duration(seconds: float) -> str:
    """A duration as `7 min 12 s`."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f}{NBSP}s" if seconds >= 10 else f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < HOUR_S:
        return f"{whole // MINUTE_S}{NBSP}min {whole % MINUTE_S}{NBSP}s"
    return f"{whole // HOUR_S:,}{NBSP}h {whole % HOUR_S // MINUTE_S}{NBSP}min"


def day(value: date) -> str:
    """A date as `7 November 2026`."""
    return f"{value.day}{NBSP}{value:%B}{NBSP}{value.year}"


def score(value: float | None) -> str:
    """A score as `0.5`, or `none`."""
    return "none" if value is None else f"{value:g}"


def version(name: str) -> str:
    """`runs/demo/models/verifier/000003` as `step 3`; any other name unchanged."""
    parts = name.split("/")
    return f"step {int(parts[-1])}" if parts[0] == "runs" and parts[-1].isdigit() else name


def defects(found: Sequence[Defect]) -> str:
    """The checker's defects as text. A defect of the whole proof names no step."""
    return ", ".join(map(_defect, found))


def _defect(defect: Defect) -> str:
    step = f"step {defect.step} " if defect.step else ""
    return f"{step}{defect.kind} ({defect.detail})" if defect.detail else f"{step}{defect.kind}"
