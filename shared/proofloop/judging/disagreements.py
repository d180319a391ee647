"""The proofs on which judges and people disagree most, with texts to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proofloop.judging.rows import JudgedProof
from proofloop.method.acceptance import judged_mean
from proofloop.report.clipping import Text, clip
from proofloop.runs.answers import critiques_of, question_of
from proofloop.schema import keys
from proofloop.schema.records import Proof
from proofloop.store import Store, get_record

SHOWN = 6
TEXT_BYTES = 20_000


@dataclass(frozen=True)
class Disagreement:
    """A proof, and its critique whose score is farthest from people's grade."""

    run_id: str
    row: JudgedProof
    strength: float
    question: Text
    solution: Text
    critique: Text

    @property
    def is_lenient(self) -> bool:
        return self.strength > self.row.grade


def worst(store: Store, run_id: str, rows: Sequence[JudgedProof]) -> list[Disagreement]:
    """The proofs whose strength is farthest from people's grade, the worst first."""
    strengths = [(row, judged_mean(row.judgements)) for row in rows]
    known = [(row, strength) for row, strength in strengths if strength is not None]
    known.sort(key=lambda pair: (-abs(pair[1] - pair[0].grade), pair[0].proof))
    return [
        _read(store, run_id, row, strength)
        for row, strength in known[:SHOWN]
        if strength != row.grade
    ]


def _read(store: Store, run_id: str, row: JudgedProof, strength: float) -> Disagreement:
    proof = get_record(store, keys.proof(run_id, row.proof), Proof)
    return Disagreement(
        run_id,
        row,
        strength,
        clip(question_of(store, run_id, proof.problem_id), TEXT_BYTES),
        clip(proof.solution, TEXT_BYTES),
        clip(_farthest(store, run_id, row), TEXT_BYTES),
    )


def _farthest(store: Store, run_id: str, row: JudgedProof) -> str:
    scored = [
        (abs(critique.verdict.score - row.grade), critique.analysis)
        for critique in critiques_of(store, run_id, row.proof)
        if critique.verdict.score is not None
    ]
    return max(scored, key=lambda pair: pair[0], default=(0.0, ""))[1]
