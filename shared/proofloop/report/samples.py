"""Chooses a dozen instructive proofs and reads their texts, shortened for the page.

The pass over the run keeps only the ids of a few proofs for each label kind and model version. Only
the chosen proofs are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from proofloop.config.run_file import RunSpec
from proofloop.method.domains import Checker, CritiqueFinding, ProofFinding, find_checker
from proofloop.report.clipping import Text, clip
from proofloop.runs.answers import critiques_of, find_judgement, meta_critiques_of, raw_of_proof
from proofloop.runs.costs import Bill
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.records import (
    Critique,
    Label,
    MetaCritique,
    Problem,
    Proof,
    RawAnswer,
    digest,
)
from proofloop.store import Store, find_record, get_record

MAX_SAMPLES = 12
MAX_CRITIQUES = 4
MAX_ASSESSMENTS = 3
QUESTION_BYTES = 5_000
SOLUTION_BYTES = 36_000
ANALYSIS_BYTES = 8_000
CRITIQUE_BYTES = 3_000
ASSESSMENT_BYTES = 600
"""The most bytes of each text on the page, counted as HTML: a report of the longest texts stays
below 1 MB, not counting the marks and fonts of formulas.
"""

GROUPS = (
    ("last", "rejected_upheld", False),
    ("first", "rejected_upheld", False),
    ("last", "accepted", True),
    ("last", "overturned", True),
    ("first", "accepted", True),
    ("first", "rejected_upheld", True),
    ("last", "undecided", True),
    ("first", "overturned", True),
    ("last", "rejected_upheld", True),
    ("first", "accepted", False),
    ("last", "accepted", False),
    ("last", "unreadable", True),
    ("last", "overturned", False),
    ("first", "undecided", True),
    ("first", "unreadable", True),
    ("last", "graded", False),
    ("last", "graded", True),
    ("last", "outranked", True),
    ("last", "unlabeled", True),
    ("first", "unlabeled", True),
)
"""The groups of samples, most instructive first: the model version, the label kind, and whether
self-score and label agree.
"""

SHOWN_ORDER = (
    "accepted",
    "rejected_upheld",
    "overturned",
    "undecided",
    "unreadable",
    "graded",
    "outranked",
    "unlabeled",
)


@dataclass(frozen=True)
class SampleAssessment:
    """One meta-critique."""

    score: float | None
    outcome: str
    analysis: Text


@dataclass(frozen=True)
class SampleCritique:
    """One critique with its assessments by the meta-verifier.

    `finding`: the exact checker's, if the domain has one. `raw`: the raw answer if it was
    unreadable.
    """

    index: int
    score: float | None
    outcome: str
    analysis: Text
    confirmed: bool | None
    carries_label: bool
    assessments: tuple[SampleAssessment, ...]
    finding: CritiqueFinding | None
    reason: str = ""
    raw: Text | None = None


@dataclass(frozen=True)
class ProofSample:
    """One proof on the page.

    `critiques_left_out`: the number of critiques that the page does not show. `finding` and
    `self_finding`: the exact checker's, on the proof and on its self-evaluation. `raw`: the raw
    answer if it was unreadable.
    """

    proof_id: str
    question: Text
    source: str | None
    version: str
    outcome: str
    reason: str
    solution: Text
    self_analysis: Text
    self_score: float | None
    label: Label | None
    critiques: tuple[SampleCritique, ...]
    critiques_left_out: int
    finding: ProofFinding | None
    self_finding: CritiqueFinding | None
    raw: Text | None = None


class SampleChoice:
    """Keeps a few proof names for each version and label kind: those with the lowest digests.

    `versions` are the generator's, oldest first.
    """

    KEEP = 2

    def __init__(self, versions: Sequence[str]) -> None:
        self._versions = list(dict.fromkeys(versions))
        self._names: dict[tuple[str, str, bool], list[tuple[str, str]]] = defaultdict(list)

    def add(self, bill: Bill) -> None:
        names = self._names[bill.generator_version, _kind(bill), _agrees(bill)]
        names.append((digest(bill.proof_id), bill.proof_id))
        names.sort()
        del names[self.KEEP :]

    def chosen(self) -> list[str]:
        """At most MAX_SAMPLES names, taken from the groups in turn. They are sorted by label kind,
        then by version.
        """
        chosen: dict[str, tuple[int, str]] = {}
        for turn in range(self.KEEP):
            for stage, kind, agrees in GROUPS:
                names = self._of(stage, kind, agrees)
                if turn < len(names) and len(chosen) < MAX_SAMPLES:
                    chosen.setdefault(names[turn], (SHOWN_ORDER.index(kind), stage))
        return sorted(chosen, key=chosen.__getitem__)

    def _of(self, stage: str, kind: str, agrees: bool) -> list[str]:
        """The names of one group, from the earliest or latest version that has any."""
        unlogged = sorted({version for version, *_ in self._names}.difference(self._versions))
        by_age = self._versions + unlogged
        for version in by_age if stage == "first" else reversed(by_age):
            if names := self._names.get((version, kind, agrees)):
                return [name for _, name in names]
        return []


def _kind(bill: Bill) -> str:
    return bill.label.kind if bill.label else "unlabeled"


def _agrees(bill: Bill) -> bool:
    """Whether the proof's self-score equals its label's score; true if there is no label."""
    if bill.label is None or bill.label.score is None:
        return True
    return bill.verdict.score == bill.label.score


def read_samples(store: Store, spec: RunSpec, proof_ids: Sequence[str]) -> tuple[ProofSample, ...]:
    """Read the chosen proofs with their critiques, and with the findings of the domain's exact
    checker, if it has one and is installed.
    """
    checker = find_checker(spec.problems.checked_by)
    return tuple(_sample(store, spec, proof_id, checker) for proof_id in proof_ids)


def _sample(store: Store, spec: RunSpec, proof_id: str, checker: Checker | None) -> ProofSample:
    proof = get_record(store, keys.proof(spec.name, proof_id), Proof)
    problem = find_record(store, keys.problem(spec.name, proof.problem_id), Problem)
    question = problem.question if problem else ""
    label = find_label(store, spec.name, proof_id)
    check = ProofCheck(checker, question, proof.solution)
    critiques = list(critiques_of(store, spec.name, proof_id))
    shown = _most_telling(critiques, label)
    is_readable = proof.verdict.outcome == "valid"
    return ProofSample(
        proof_id=proof_id,
        question=clip(question, QUESTION_BYTES),
        source=problem.source if problem else None,
        version=proof.provenance.model_version,
        outcome=proof.verdict.outcome,
        reason=proof.verdict.reason,
        solution=clip(proof.solution, SOLUTION_BYTES),
        self_analysis=clip(proof.self_analysis, ANALYSIS_BYTES),
        self_score=proof.verdict.score,
        label=label,
        critiques=tuple(
            _sample_critique(store, spec.name, critique, label, check) for critique in shown
        ),
        critiques_left_out=len(critiques) - len(shown),
        finding=check.proof() if is_readable else None,
        self_finding=check.critique(proof.self_analysis) if is_readable else None,
        raw=None if is_readable else _raw(raw_of_proof(store, proof), "", SOLUTION_BYTES),
    )


def _most_telling(critiques: Sequence[Critique], label: Label | None) -> list[Critique]:
    """Choose at most MAX_CRITIQUES: those behind the label first, then those with the lowest
    scores. They are sorted by index.
    """
    carrying = label.critiques if label else ()

    def rank(critique: Critique) -> tuple[bool, float, int]:
        score = critique.verdict.score
        return critique.index not in carrying, 2.0 if score is None else score, critique.index

    return sorted(sorted(critiques, key=rank)[:MAX_CRITIQUES], key=lambda critique: critique.index)


def _sample_critique(
    store: Store, run_id: str, critique: Critique, label: Label | None, check: ProofCheck
) -> SampleCritique:
    judgement = find_judgement(store, run_id, critique.proof_id, critique.index)
    metas = meta_critiques_of(store, run_id, critique.proof_id, critique.index)
    is_readable = critique.verdict.outcome == "valid"
    return SampleCritique(
        index=critique.index,
        score=critique.verdict.score,
        outcome=critique.verdict.outcome,
        analysis=clip(critique.analysis, CRITIQUE_BYTES),
        confirmed=judgement.confirmed if judgement else None,
        carries_label=bool(label and critique.index in label.critiques),
        assessments=_assessments(list(metas.values())),
        finding=check.critique(critique.analysis) if is_readable else None,
        reason=critique.verdict.reason,
        raw=None if is_readable else _raw(critique.raw, critique.analysis, CRITIQUE_BYTES),
    )


def _raw(raw: RawAnswer | None, analysis: str, limit: int) -> Text | None:
    """The raw answer, or else its reasoning. None if neither is stored, or if the analysis is the
    same text.
    """
    if raw is None or (raw.text is None and analysis):
        return None
    text = raw.text or raw.reasoning
    return clip(text, limit) if text else None


def _assessments(metas: Sequence[MetaCritique]) -> tuple[SampleAssessment, ...]:
    shown: list[SampleAssessment] = []
    for meta in metas[:MAX_ASSESSMENTS]:
        analysis = clip(meta.analysis, ASSESSMENT_BYTES)
        shown.append(SampleAssessment(meta.verdict.score, meta.verdict.outcome, analysis))
    return tuple(shown)


@dataclass(frozen=True)
class ProofCheck:
    """The exact checks of one proof; the findings are None without a checker."""

    checker: Checker | None
    question: str
    solution: str

    def proof(self) -> ProofFinding | None:
        if self.checker is None:
            return None
        return self.checker.check_proof(self.question, self.solution)

    def critique(self, analysis: str) -> CritiqueFinding | None:
        if self.checker is None:
            return None
        return self.checker.check_critique(self.question, self.solution, analysis)
