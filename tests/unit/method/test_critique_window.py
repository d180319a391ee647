"""Critiques asked for by need: labels as of asking for all, in every order of arrival."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.method.critique_window import critiques_to_ask, first_critiques
from proofloop.method.label_rule import Decision, decide
from proofloop.schema.records import Judgement
from tests.unit.method.test_label_rule import (
    HALF,
    KINDS,
    PRAISE,
    ZERO,
    ZERO_REFUTED,
    Kind,
    judged,
    said,
)


@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        ([], 3),
        ([ZERO], 3),
        ([ZERO, ZERO], 3),
        ([ZERO, PRAISE], 4),
        ([PRAISE, PRAISE], 5),
        ([ZERO, ZERO, PRAISE], 5),
        ([PRAISE, ZERO_REFUTED, PRAISE], 16),
        ([HALF, PRAISE, PRAISE], 7),
    ],
)
def test_as_many_critiques_as_the_label_lacks_and_one_more_later(
    kinds: list[Kind], asked: int
) -> None:
    assert critiques_to_ask(judged(*kinds), n=16, k=3) == asked


def label_by_need(
    critiques: list[Judgement], n: int, k: int, rng: random.Random
) -> tuple[Decision, int]:
    """The decision when critiques are asked for by need and arrive in random order; how many were
    judged before it.
    """
    arrived: list[Judgement] = []
    in_flight = list(range(first_critiques(n=n, k=k)))
    asked = len(in_flight)
    while (decision := decide(arrived, n=n, k=k)) is None:
        assert in_flight, "an undecided proof waits for nothing"
        arrived.append(critiques[in_flight.pop(rng.randrange(len(in_flight)))])
        needed = max(asked, critiques_to_ask(arrived, n=n, k=k))
        in_flight += range(asked, needed)
        asked = needed
    return decision, len(arrived)


@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=16),
    st.integers(1, 16),
    st.randoms(use_true_random=False),
)
def test_labels_are_those_of_asking_for_all(kinds: list[Kind], k: int, rng: random.Random) -> None:
    critiques, n = judged(*kinds), len(kinds)
    k = min(k, n)
    found, _ = label_by_need(critiques, n, k, rng)
    assert said(found) == said(decide(critiques, n=n, k=k))


def test_a_flawed_proof_needs_few_critiques() -> None:
    rng = random.Random(0)
    judged_of = [label_by_need(judged(*[ZERO] * 64), 64, 8, rng)[1] for _ in range(20)]
    assert set(judged_of) == {8}
