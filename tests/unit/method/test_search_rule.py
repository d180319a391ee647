"""Critiques of a search by need: the search is the one of asking for all, in every order of
arrival.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.method.search_rule import (
    Candidate,
    Contender,
    best,
    best_so_far,
    candidate,
    certainly_kept,
    next_critiques,
    outranked,
    refinements,
)
from proofloop.schema.events import ParentProof
from proofloop.schema.records import Judgement
from tests.builders import judgement


def pool(*totals: tuple[int, float]) -> list[Contender]:
    """Proofs with so many written critiques and their sum."""
    return [
        Contender(f"p-{number:03d}", written, 0, total)
        for number, (written, total) in enumerate(totals)
    ]


def test_a_proof_is_outranked_once_enough_others_are_certainly_better() -> None:
    found = pool((4, 3.0), (2, 0.0), (2, 1.0), (0, 0.0))
    assert outranked(found, n=4, keep=1) == {"p-001", "p-002"}
    assert outranked(found, n=4, keep=2) == set()
    assert outranked(pool((4, 3.0), (4, 2.5), (2, 0.0)), n=4, keep=2) == {"p-002"}


def test_of_equals_the_earlier_proof_wins() -> None:
    assert outranked(pool((4, 2.0), (2, 0.0)), n=4, keep=1) == {"p-001"}
    assert outranked(pool((2, 0.0), (4, 2.0)), n=4, keep=1) == set()


def test_a_complete_proof_is_kept_once_too_few_others_can_be_better() -> None:
    def kept(*totals: tuple[int, float], unwritten: int = 0) -> list[str]:
        found = certainly_kept(pool(*totals), n=4, keep=2, unwritten=unwritten)
        return [each.proof_id for each in found]

    assert kept((4, 3.0), (4, 2.5), (4, 2.0)) == ["p-000", "p-001"]
    assert kept((4, 3.0), (4, 2.5), (2, 1.5)) == ["p-000"]
    assert kept((4, 3.0), (4, 2.5), (4, 2.0), unwritten=1) == ["p-000"]
    assert kept((4, 3.0), unwritten=2) == []


def test_the_next_critiques_go_to_the_proofs_with_the_highest_possible_sums() -> None:
    found = pool((4, 4.0), (2, 2.0), (2, 0.5), (0, 0.0))
    assert list(next_critiques(found, n=4, room=3)) == ["p-001", "p-003", "p-001"]
    assert Counter(next_critiques(found, n=4, room=99)) == {"p-001": 2, "p-002": 2, "p-003": 2}
    assert list(next_critiques([Contender("p", 3, 1, 3.0)], n=4, room=9)) == []


def test_at_most_half_of_n_critiques_of_a_proof_are_in_flight() -> None:
    def asked(n: int, **fields: int) -> int:
        return len(list(next_critiques([Contender("p", **fields)], n=n, room=99)))

    assert (asked(16), asked(16, in_flight=5), asked(16, written=12)) == (8, 3, 4)
    assert (asked(1), asked(3), asked(16, in_flight=9)) == (1, 1, 0)


def test_complete_proofs_among_the_best_so_far() -> None:
    found = pool((4, 3.0), (4, 2.5), (3, 2.9), (4, 1.0))
    assert [each.proof_id for each in best_so_far(found, n=4, keep=3)] == ["p-000", "p-001"]


# -- a whole search, on random scores

SCORES = (0.0, 0.0, 0.5, 1.0, 1.0, 1.0, None)


@dataclass(frozen=True)
class Plan:
    n: int
    first: int
    keep: int
    analyses: int
    rounds: int
    seed: int

    def judged(self, name: str) -> list[Judgement]:
        """The critiques of a proof with their judgements, always the same."""
        rng = random.Random(f"{self.seed} {name}")
        choice = SCORES if rng.random() < 0.7 else (1.0, 1.0, 1.0, 0.5)
        scores = [rng.choice(choice) for _ in range(self.n)]
        return [
            judgement(index, score, rng.random() < 0.5 if score in (0.0, 0.5) else None)
            for index, score in enumerate(scores)
        ]

    def drawn(self, kept: list[Candidate], number: int) -> tuple[ParentProof, ...]:
        return refinements(kept, self.analyses, random.Random(f"{self.seed} {number}"))

    def keeps(self, number: int) -> int:
        return 1 if number == self.rounds else self.keep


@dataclass
class Search:
    """What was shown in each round, and how the search ended."""

    shown: list[tuple[ParentProof, ...]] = field(default_factory=list)
    best: list[tuple[str, float]] = field(default_factory=list)
    solved: bool = False
    critiques: int = 0


def ask_all(plan: Plan) -> Search:
    found, posed, kept = Search(), plan.first, list[Candidate]()
    new = [f"p-{number:03d}" for number in range(posed)]
    for number in range(plan.rounds + 1):
        candidates = [candidate(name, plan.judged(name)) for name in new]
        found.critiques += plan.n * len(new)
        found.solved = any(each.total == plan.n for each in candidates)
        if found.solved:
            break
        kept = best([*kept, *candidates], plan.keep)
        found.best.append((kept[0].proof_id, kept[0].score))
        parents = plan.drawn(kept, number)
        if number == plan.rounds or not parents:
            break
        found.shown.append(parents)
        new = [f"p-{posed + place:03d}" for place in range(len(parents))]
        posed += len(parents)
    return found


def ask_by_need(plan: Plan, rng: random.Random) -> Search:
    found, posed, kept = Search(), plan.first, list[Candidate]()
    new = [f"p-{number:03d}" for number in range(posed)]
    for number in range(plan.rounds + 1):
        chosen = compare(plan, kept, new, plan.keeps(number), rng, found)
        if found.solved:
            break
        kept = best([*kept, *[candidate(name, plan.judged(name)) for name in chosen]], plan.keep)
        found.best.append((kept[0].proof_id, kept[0].score))
        parents = plan.drawn(kept, number)
        if number == plan.rounds or not parents:
            break
        found.shown.append(parents)
        new = [f"p-{posed + place:03d}" for place in range(len(parents))]
        posed += len(parents)
    return found


def compare(
    plan: Plan, kept: list[Candidate], new: list[str], keep: int, rng: random.Random, found: Search
) -> set[str]:
    """The new proofs that are judged; proofs and critiques are written in random order."""
    n, unwritten, dropped, judged = plan.n, list(new), set[str](), set[str]()
    rng.shuffle(unwritten)
    written = {each.proof_id: Contender(each.proof_id, n, 0, each.total) for each in kept}
    in_flight: list[str] = []
    while True:
        contenders = list(written.values())
        dropped |= outranked(contenders, n=n, keep=keep) - {each.proof_id for each in kept}
        certain = certainly_kept(contenders, n=n, keep=keep, unwritten=len(unwritten))
        judged |= {each.proof_id for each in certain} & set(new)
        assert not judged & dropped
        live = [each for each in contenders if each.proof_id not in dropped]
        for name in next_critiques(live, n=n, room=rng.randint(1, 8) - len(in_flight)):
            in_flight.append(name)
            written[name] = with_critique(written[name], asked=1)
        if unwritten and (not in_flight or rng.random() < 0.3):
            name = unwritten.pop()
            written[name] = Contender(name)
        elif in_flight:
            name = in_flight.pop(rng.randrange(len(in_flight)))
            score = plan.judged(name)[written[name].written].verdict.score or 0.0
            written[name] = with_critique(written[name], asked=-1, written=1, score=score)
            found.critiques += 1
            if written[name].passes(n):
                found.solved = True
                return set()
        else:
            assert {each.proof_id for each in live} >= judged
            return judged


def with_critique(
    each: Contender, *, asked: int, written: int = 0, score: float = 0.0
) -> Contender:
    return Contender(
        each.proof_id, each.written + written, each.in_flight + asked, each.total + score
    )


plans = st.builds(
    Plan,
    n=st.integers(1, 6),
    first=st.integers(1, 6),
    keep=st.integers(1, 5),
    analyses=st.integers(1, 3),
    rounds=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)


@given(plans, st.randoms(use_true_random=False))
def test_searches_by_need_are_those_of_asking_for_all(plan: Plan, rng: random.Random) -> None:
    by_need, everything = ask_by_need(plan, rng), ask_all(plan)
    assert by_need.critiques <= everything.critiques
    assert (by_need.shown, by_need.best, by_need.solved) == (
        everything.shown,
        everything.best,
        everything.solved,
    )


@pytest.mark.parametrize("keep", [1, 4])
def test_searches_by_need_ask_for_fewer_critiques(keep: int) -> None:
    asked = [
        (ask_by_need(plan, random.Random(seed)).critiques, ask_all(plan).critiques)
        for seed in range(10)
        for plan in [Plan(n=16, first=8, keep=keep, analyses=3, rounds=2, seed=seed)]
    ]
    by_need, everything = (sum(each) for each in zip(*asked, strict=True))
    assert by_need < 0.8 * everything
