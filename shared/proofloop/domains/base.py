"""What a problem domain offers: it poses problems, and where it has an exact checker, it measures.

The checker never rewards a model: it stands beside the loop and says how good the learned judges really are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from proofloop.errors import ConfigError
from proofloop.records import Problem, Score, digest

SPLIT_BUCKETS = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}  # tenths of all problems


def is_in_split(question: str, split: str) -> bool:
    """Whether a question falls into a split: its digest decides, so that splits share none. Raises ConfigError."""
    if split not in SPLIT_BUCKETS:
        raise ConfigError(f'unknown split "{split}"', hint=f"one of {', '.join(SPLIT_BUCKETS)}")
    return int(digest(question), 16) % 10 in SPLIT_BUCKETS[split]


@dataclass(frozen=True)
class Defect:
    """One flaw of a proof, in the domain's words: the step's label, the kind of flaw, and what shows it if need be."""

    step: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class ProofFinding:
    """What the exact checker says of a proof: its true score and every defect that explains it."""

    score: Score
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class CritiqueFinding:
    """What the exact checker says of an analysis.

    `claims`: the defects it names. `quality`: the meta rubric's score (0: all claims false, 0.5: some, 1: all real or
    none claimed). `faithful`: it names a real defect with its step and kind and claims no false one; of a flawless
    proof, claims none.
    """

    claims: tuple[Defect, ...]
    quality: Score
    faithful: bool


@dataclass(frozen=True)
class Sample:
    """A flawed proof, and an analysis that says so with its score: to ask a model about, to see how it answers."""

    proof: str
    analysis: str
    score: Score


PLAIN_SAMPLE = Sample(
    proof="The claim is true, since everything in it holds. This is what was to be shown.",
    analysis="The proof only asserts the claim. No step of it is justified, so nothing is proved.",
    score=0.0,
)


class Domain(Protocol):
    """A source of problems; `check_*` raise `LookupError` where the domain has no exact checker."""

    name: str

    def pose(self, index: int, *, split: str, seed: int) -> Problem:
        """Problem number `index` of a split ("train", "validation", "test"): always the same; splits share none."""
        ...

    def sample(self, question: str) -> Sample:
        """A flawed proof of one of its questions with an analysis of it, in the words of the domain."""
        ...

    def check_proof(self, question: str, solution: str) -> ProofFinding: ...

    def check_critique(self, question: str, solution: str, analysis: str) -> CritiqueFinding: ...
