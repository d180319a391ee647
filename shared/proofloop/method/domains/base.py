"""The protocols of a problem domain and of its exact checker.

The checker never rewards a model. It measures models, and it may play the expert who grades the
data sets of a curriculum.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

from proofloop.errors import ConfigError
from proofloop.schema.records import Problem, Score, digest

SPLIT_BUCKETS = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}
"""The tenths of all problems in each split."""


def is_in_split(question: str, split: str) -> bool:
    """Whether a question belongs to a split. Its digest decides, so splits are disjoint.

    Raises ConfigError for an unknown split.
    """
    if split not in SPLIT_BUCKETS:
        raise ConfigError(f'unknown split "{split}"', f"use one of {', '.join(SPLIT_BUCKETS)}")
    return int(digest(question), 16) % 10 in SPLIT_BUCKETS[split]


@dataclass(frozen=True)
class Defect:
    """A flaw of a proof in the domain's terms: the step's label, the kind, and evidence if the kind
    needs it.
    """

    step: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class ProofFinding:
    """The exact checker's result for a proof: the true score and all defects behind it."""

    score: Score
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class CritiqueFinding:
    """The exact checker's result for a critique's analysis.

    `claims`: the defects that the analysis names. `quality`: the score by the meta-verifier's
      rubric (0 if all claims are false, 0.5 if some are, 1 if all are real or there are none).
      `faithful`: it names at least one real defect with step and kind, and no false one; for a
      flawless proof it names none.
    """

    claims: tuple[Defect, ...]
    quality: Score
    faithful: bool


@dataclass(frozen=True)
class Sample:
    """A flawed proof with an analysis and score: the material of a test question to a verifier or
    meta-verifier.
    """

    proof: str
    analysis: str
    score: Score


PLAIN_SAMPLE = Sample(
    proof="The claim is true, since everything in it holds. This is what was to be shown.",
    analysis="The proof only asserts the claim. No step of it is justified, so nothing is proved.",
    score=0.0,
)


class Checker(Protocol):
    """A domain's exact checks. Subclass it, and write the checks that the domain has.

    A check returns None if it cannot tell: the domain lacks this check, or the question is from
    elsewhere.
    """

    def check_proof(self, question: str, solution: str) -> ProofFinding | None:
        """Find the true score and the defects of a proof."""
        return None

    def check_critique(self, question: str, solution: str, analysis: str) -> CritiqueFinding | None:
        """Compare the claims of an analysis with the proof's real defects."""
        return None

    def check_meta_critique(
        self, question: str, solution: str, analysis: str, score: Score
    ) -> bool | None:
        """Whether `score` is the right meta-score of the analysis: by default, its true quality."""
        finding = self.check_critique(question, solution, analysis)
        return None if finding is None else finding.quality == score


class Domain(Protocol):
    """A source of problems. Subclass it to inherit the defaults.

    `name`: the domain's name in run files, and that of its entry point. `prompt_pack`: the pack for
    its problems. `checker`: None if the domain has no exact checks.
    """

    name: str
    prompt_pack: str = "math"
    checker: Checker | None = None

    @abstractmethod
    def pose(self, index: int, *, split: str, seed: int) -> Problem:
        """Problem number `index` of a split ("train", "validation", "test"); deterministic, and
        splits are disjoint (see `is_in_split`).
        """
        ...

    def sample(self, question: str) -> Sample:
        """A flawed proof of the question with its analysis: `doctor` shows it to the models."""
        return PLAIN_SAMPLE
