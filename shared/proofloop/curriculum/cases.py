"""The method's data sets in the store, and the choice of cases for a run.

An exact checker, or people's files, grade D_v, D_mv and the held-out cases, and nothing else: later
iterations learn from labels.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.schema.given import GivenCase
from proofloop.schema.records import Given, Record

T = TypeVar("T")


class CaseFile(Record):
    """A data set."""

    proofs: tuple[GradedProof, ...] = ()
    analyses: tuple[GradedAnalysis, ...] = ()


def is_flawed(proof: GradedProof) -> bool:
    return proof.score < 1


def balanced(
    cases: Sequence[T], kind: Callable[[T], Hashable], most: int, rng: random.Random
) -> list[T]:
    """At most `most` cases in random order, as evenly from each kind as possible. If there are
    several kinds, none has more than half.
    """
    by_kind = defaultdict[Hashable, list[T]](list)
    for case in rng.sample(list(cases), len(cases)):
        by_kind[kind(case)].append(case)
    chosen = list[T]()
    waiting = sorted(by_kind.values(), key=len)
    for place, group in enumerate(waiting):  # the others share what a rare kind lacks
        room = (most - len(chosen)) // (len(waiting) - place)
        is_last = chosen and place == len(waiting) - 1
        chosen += group[: min(room, len(chosen)) if is_last else room]
    return rng.sample(chosen, len(chosen))


def evenly(proofs: Sequence[GradedProof], rng: random.Random) -> list[GradedProof]:
    """As many flawed proofs as sound ones: a judge that sees mostly sound proofs learns to accept
    all.
    """
    flawed = sum(map(is_flawed, proofs))
    return balanced(proofs, is_flawed, 2 * min(flawed, len(proofs) - flawed), rng)


def by_quality(
    analyses: Sequence[GradedAnalysis], most: int, rng: random.Random
) -> list[GradedAnalysis]:
    """Analyses balanced by their quality."""
    return balanced(analyses, lambda case: case.quality, most, rng)


def sample(cases: Sequence[T], most: int, rng: random.Random) -> list[T]:
    """At most `most` different cases."""
    return rng.sample(list(cases), min(most, len(cases)))


def fill(cases: Sequence[T], count: int, rng: random.Random) -> list[T]:
    """Exactly `count` cases, as every step of a run needs. Repeats some only if there are too few;
    empty if there are none.
    """
    chosen = sample(cases, count, rng)
    return chosen + rng.choices(list(cases), k=count - len(chosen)) if chosen else []


def given_problems(questions: Iterable[str]) -> list[GivenCase]:
    return [GivenCase(question=question) for question in questions]


def given_proofs(proofs: Iterable[GradedProof], meta_verifier: str = "") -> list[GivenCase]:
    """`meta_verifier`: the version that judges the critiques."""
    return [
        GivenCase(
            question=proof.question,
            solution=proof.solution,
            given=Given(score=proof.score, by=proof.by),
            meta_verifier_version=meta_verifier,
        )
        for proof in proofs
    ]


def given_analyses(analyses: Iterable[GradedAnalysis]) -> list[GivenCase]:
    return [
        GivenCase(
            question=case.question,
            solution=case.solution,
            analysis=case.analysis,
            given=Given(is_analysis=True, quality=case.quality, by=case.by),
        )
        for case in analyses
    ]
