"""The search policy of section 3.3.3: which proofs of a problem are refined next, and which
critiques they are shown.

Round after round the best proofs are each paired with some of their critiques, one refined proof a
pair.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proofloop.schema.events import ParentProof
from proofloop.schema.records import Judgement


@dataclass(frozen=True)
class Candidate:
    """A readable proof with its critiques by number.

    `score`: the mean of all critiques; an unreadable one counts as 0. `issues`: the critiques with
    an issue that the meta-verifier confirmed; `overturned`: those with an unconfirmed issue;
    `silent`: those without an issue.
    """

    proof_id: str
    score: float
    issues: tuple[int, ...]
    overturned: tuple[int, ...]
    silent: tuple[int, ...]


def candidate(proof_id: str, judgements: Iterable[Judgement]) -> Candidate:
    """What the judgements of a proof's critiques make of it."""
    judged = [judgement for judgement in judgements if judgement.index >= 0]
    readable = [judgement for judgement in judged if judgement.verdict.score is not None]
    return Candidate(
        proof_id,
        sum(judgement.verdict.score or 0.0 for judgement in readable) / max(1, len(judged)),
        issues=tuple(judgement.index for judgement in readable if judgement.confirmed),
        overturned=tuple(judgement.index for judgement in readable if judgement.confirmed is False),
        silent=tuple(judgement.index for judgement in readable if judgement.confirmed is None),
    )


def best(pool: Iterable[Candidate], keep: int) -> list[Candidate]:
    """The `keep` candidates of the highest score, the best first; of equals those that were written
    first.
    """
    # -999 before -1000.
    return sorted(pool, key=lambda each: (-each.score, len(each.proof_id), each.proof_id))[:keep]


def refinements(
    kept: Sequence[Candidate], analyses: int, rng: random.Random
) -> tuple[ParentProof, ...]:
    """What is to be refined: each proof as often as it has critiques, at most `analyses` times,
    with another each time.

    Upheld issues come first, and where there are more of them than places it is drawn which.
    """
    return tuple(
        ParentProof(proof_id=each.proof_id, critiques=(index,))
        for each in kept
        for index in [
            index
            for kind in (each.issues, each.overturned, each.silent)
            for index in rng.sample(kind, len(kind))
        ][:analyses]
    )
