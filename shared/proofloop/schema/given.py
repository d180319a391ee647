"""Given material: cases that enter a run in the middle of the pipeline.

A given proof enters at the verifier, a given analysis at the meta-verifier. The run driver stores
it as a `Proof` (and a `Critique`) with its origin, a `records.Given`.
"""

from __future__ import annotations

from pydantic import Field

from proofloop.schema.ids import case_id
from proofloop.schema.records import Given, Problem, Record, Score


class PeoplesGrade(Record):
    """The grade of a proof whose judges are measured. No model sees it, and it is not the label.

    `share`: the points over full marks. `score`: the same on the method's scale. `problem`: the
    name that all proofs of the problem share. `attack`: the kind of manipulation of the proof.
    """

    share: float = Field(ge=0, le=1)
    score: Score
    problem: str
    source: str = ""
    attack: str = ""


class GivenCase(Record):
    """A problem to prove, a proof to verify (`solution`), or an analysis to judge (`analysis`).

    The versions name the models that judge the case; empty: those that the run driver chooses.
    `reference`, `rubric` and `rival` are for prompts that show a solution, a marking scheme, or
    another proof to compare with.
    """

    question: str
    solution: str | None = None
    analysis: str | None = None
    given: Given | None = None
    verifier_version: str = ""
    meta_verifier_version: str = ""
    reference: str | None = None
    rubric: str | None = None
    rival: str | None = None
    graded: PeoplesGrade | None = None

    def problem(self, number: int) -> Problem:
        """The problem that the case is about. `number` counts the cases of the run from 0."""
        source = self.given.origin if self.given else ""
        return Problem(
            id=case_id(number),
            question=self.question,
            source=source or None,
            reference=self.reference,
            rubric=self.rubric,
            rival=self.rival,
        )


class GivenPortion(Record):
    """Cases that enter a run together, in order."""

    cases: tuple[GivenCase, ...]
