"""The search policy of section 3.3.3: which proofs of a problem are refined next, and which
critiques they are shown.

Round after round the best proofs are each paired with some of their critiques, one refined proof a
pair.

Not every proof needs all n critiques to know the best `keep`. The mean of a `Contender` has bounds,
and a proof is outranked once `keep` others are certainly better. Exact: kept proofs, the critiques
shown and all random draws are those of asking for all critiques.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from proofloop.schema.events import ParentProof
from proofloop.schema.records import Judgement


@dataclass(frozen=True)
class Candidate:
    """A readable proof with its critiques by number.

    `total`: the sum of the scores of all `critiques`; an unreadable one counts as 0. `issues`: the
    critiques with an issue that the meta-verifier confirmed; `overturned`: those with an
    unconfirmed issue, all issues in a run without meta-verification; `silent`: those without an
    issue.
    """

    proof_id: str
    total: float
    critiques: int
    issues: tuple[int, ...]
    overturned: tuple[int, ...]
    silent: tuple[int, ...]

    @property
    def score(self) -> float:
        """The mean score."""
        return self.total / max(1, self.critiques)


def candidate(proof_id: str, judgements: Iterable[Judgement]) -> Candidate:
    """The proof as a candidate, from the judgements of its critiques."""
    judged = [judgement for judgement in judgements if judgement.index >= 0]
    flawed = [judgement for judgement in judged if judgement.verdict.score in (0.0, 0.5)]
    return Candidate(
        proof_id,
        sum(judgement.verdict.score or 0.0 for judgement in judged),
        len(judged),
        issues=tuple(judgement.index for judgement in flawed if judgement.confirmed),
        overturned=tuple(judgement.index for judgement in flawed if not judgement.confirmed),
        silent=tuple(judgement.index for judgement in judged if judgement.verdict.score == 1.0),
    )


def best(pool: Iterable[Candidate], keep: int) -> list[Candidate]:
    """The `keep` candidates of the highest score, the best first; among equals those that were
    written first.
    """
    return sorted(pool, key=lambda each: _rank(each.score, each.proof_id))[:keep]


def _rank(score: float, proof_id: str) -> tuple[float, int, str]:
    """The better proof has the lower rank. No two proofs share one."""
    return (-score, len(proof_id), proof_id)  # -999 before -1000


def refinements(
    kept: Sequence[Candidate], analyses: int, rng: random.Random
) -> tuple[ParentProof, ...]:
    """The refinements of a round: each proof once for each of its critiques, at most `analyses`
    times. Critiques with upheld issues come first; chance decides which of them if there are too
    many.
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


FIRST_CRITIQUES = 1
"""With each new proof the generator requests so many critiques: no proof is outranked before one.
"""

EXPECTED_LOSS = 0.25
"""By how much a critique in flight is expected to lower the highest possible sum of a proof. With a
value above 0 the next critiques go to several proofs, and not all to one.
"""


@dataclass(frozen=True)
class Contender:
    """A readable proof of which some critiques are written. `total` is the sum of their scores; an
    unreadable one counts as 0.
    """

    proof_id: str
    written: int = 0
    in_flight: int = 0
    total: float = 0.0

    def lowest(self) -> tuple[float, int, str]:
        """Its rank if all missing critiques score 0."""
        return _rank(self.total, self.proof_id)

    def highest(self, n: int) -> tuple[float, int, str]:
        """Its rank if all missing critiques score 1."""
        return _rank(self.total + n - self.written, self.proof_id)

    def takes_critique(self, n: int) -> bool:
        """Whether another critique may be requested: at most half of n are in flight."""
        return self.written + self.in_flight < n and self.in_flight < max(1, n // 2)

    def passes(self, n: int) -> bool:
        """Whether all n critiques are readable and score 1."""
        return self.total == n


def outranked(pool: Sequence[Contender], *, n: int, keep: int) -> set[str]:
    """The proofs that cannot be among the best `keep`, whatever their missing critiques score."""
    if len(pool) <= keep:
        return set()
    bar = sorted(each.lowest() for each in pool)[keep - 1]
    return {each.proof_id for each in pool if each.highest(n) > bar}


def certainly_kept(
    pool: Sequence[Contender], *, n: int, keep: int, unwritten: int
) -> Iterator[Contender]:
    """The proofs with all n critiques that will be among the best `keep`, whatever the others score
    and the `unwritten` proofs turn out to be.
    """
    ranks = sorted(each.highest(n) for each in pool)
    for each in pool:
        rank = each.lowest()
        if each.written >= n and bisect_left(ranks, rank) + unwritten < keep:
            yield each


def best_so_far(pool: Iterable[Contender], *, n: int, keep: int) -> Iterator[Contender]:
    """Those of the `keep` proofs with the highest sums so far that have all n critiques. Others may
    still outrank them.
    """
    return (each for each in heapq.nsmallest(keep, pool, Contender.lowest) if each.written >= n)


def next_critiques(pool: Iterable[Contender], *, n: int, room: int) -> Iterator[str]:
    """The proofs that get another critique, at most `room` critiques in all: always the one with
    the highest possible sum, among equals the one with most critiques.
    """
    waiting = [(_need(each, n), each) for each in pool if each.takes_critique(n)]
    heapq.heapify(waiting)
    while waiting and room > 0:
        _, each = heapq.heappop(waiting)
        yield each.proof_id
        room -= 1
        asked = replace(each, in_flight=each.in_flight + 1)
        if asked.takes_critique(n):
            heapq.heappush(waiting, (_need(asked, n), asked))


def _need(each: Contender, n: int) -> tuple[float, int, int, str]:
    """The lower, the sooner."""
    hoped = each.total + n - each.written - EXPECTED_LOSS * each.in_flight
    return (-hoped, -each.written, len(each.proof_id), each.proof_id)
