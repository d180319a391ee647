"""Given material: cases that enter a run in the middle of the pipeline.

A given proof enters at the verifier, a given analysis at the meta-verifier. The run driver stores
what was given as a `Proof` (and a `Critique`) with a `records.Given` that says where it came from.
"""

from __future__ import annotations

from proofloop.schema.ids import case_id
from proofloop.schema.records import Given, Problem, Record


class GivenCase(Record):
    """A problem to prove, a proof to verify (`solution`), or an analysis to judge (`analysis`).

    The versions name the models that judge the case; empty: those that the run driver chooses.
    """

    question: str
    solution: str | None = None
    analysis: str | None = None
    given: Given | None = None
    verifier_version: str = ""
    meta_verifier_version: str = ""

    def problem(self, number: int) -> Problem:
        """The problem that the case is about. `number` counts the cases of the run from 0."""
        source = self.given.origin if self.given else ""
        return Problem(id=case_id(number), question=self.question, source=source or None)


class GivenPortion(Record):
    """Cases that enter a run together, in order."""

    cases: tuple[GivenCase, ...]
