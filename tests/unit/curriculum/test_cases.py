"""How cases are drawn, and how they enter a run."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.curriculum.cases import balanced, fill, given_analyses, given_proofs
from proofloop.schema.given import GivenCase
from proofloop.schema.records import Given


@pytest.mark.parametrize(
    ("there", "most", "taken"),
    [
        # What a rare kind lacks, the others share.
        (
            {0: 3, 1: 50, 2: 50},
            43,
            {0: 3, 1: 20, 2: 20},
        ),
        ({0: 5, 1: 95}, 100, {0: 5, 1: 5}),  # a judge that sees mostly one kind learns to say it
        ({0: 5, 1: 10, 2: 95}, 100, {0: 5, 1: 10, 2: 15}),
        ({1: 9}, 5, {1: 5}),
    ],
)
def test_balanced_takes_evenly_and_no_kind_is_over_half(
    there: dict[int, int], most: int, taken: dict[int, int]
):
    cases = [kind for kind, count in there.items() for _ in range(count)]
    assert Counter(balanced(cases, lambda case: case, most, random.Random(0))) == taken


def test_every_step_gets_as_many_cases_and_repeats_some_only_if_there_are_too_few():
    rng = random.Random(0)
    assert len(set(fill(range(9), 5, rng))) == 5
    assert Counter(fill([1, 2], 5, rng)).keys() == {1, 2}
    assert len(fill([1, 2], 5, rng)) == 5
    assert fill([], 5, rng) == []


def test_graded_rows_enter_a_run_with_their_grades():
    proof = GradedProof(question="Q", solution="S", score=0.5, by="Ada")
    analysis = GradedAnalysis(question="Q", solution="S", analysis="A", quality=1.0)
    assert given_proofs([proof], "v2") == [
        GivenCase(
            question="Q",
            solution="S",
            given=Given(score=0.5, by="Ada"),
            meta_verifier_version="v2",
        )
    ]
    given = Given(is_analysis=True, quality=1.0, by="expert")
    assert given_analyses([analysis]) == [
        GivenCase(question="Q", solution="S", analysis="A", given=given)
    ]
