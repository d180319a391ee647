"""The knock-out among accepted proofs: pairs, orders, ties, and its figures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.problems import Problems
from proofloop.errors import ConfigError
from proofloop.judging.knock_out import (
    Match,
    Pair,
    comparing_spec,
    knock_out,
    knock_out_figures,
    most_comparisons,
)
from proofloop.judging.rows import JudgedProof
from proofloop.schema.given import GivenCase, PeoplesGrade
from tests.unit.judging.rows import judged


def accepted(name: str, truth: float, scores: Sequence[float], problem: str = "P") -> JudgedProof:
    return judged(truth, scores, proof=name, problem=problem, score=1.0, outcome="accepted")


def by_truth(pairs: Sequence[Pair]) -> list[Match]:
    """A judge that is always right, and finds equals equal."""

    def score(one: JudgedProof, other: JudgedProof) -> float:
        return 0.5 + (one.truth > other.truth) / 2 - (one.truth < other.truth) / 2

    return [Match(one, other, (score(one, other), score(other, one))) for one, other in pairs]


def test_the_better_proof_wins_although_its_mean_is_lower() -> None:
    rows = [accepted("a", 0.0, [1.0, 1.0]), accepted("b", 1.0, [1.0, 0.5])]
    winners, matches = knock_out(rows, by_truth)
    assert [row.proof for row in winners] == ["b"]
    assert len(matches) == 1


def test_between_equals_the_higher_mean_wins_and_then_the_first_in_the_file() -> None:
    lasts = {"a": 0.5, "b": 1.0, "c": 1.0}
    rows = [accepted(name, 1.0, [1.0, last]) for name, last in lasts.items()]
    winners, _ = knock_out(rows, by_truth)
    assert [row.proof for row in winners] == ["b"]


@pytest.mark.parametrize("proofs", [1, 2, 3, 5, 8])
def test_all_proofs_of_a_problem_but_the_winner_lose_once(proofs: int) -> None:
    rows = [accepted(f"{number}", float(number == 0), [0.5]) for number in range(proofs)]
    winners, matches = knock_out(rows, by_truth)
    assert [row.proof for row in winners] == ["0"]
    assert len({match.loser.proof for match in matches}) == len(matches) == proofs - 1


def test_only_accepted_proofs_of_the_same_problem_meet() -> None:
    rows = [accepted("a", 1.0, [1.0]), accepted("b", 1.0, [1.0], "Q"), judged(1.0, [0.0])]
    winners, matches = knock_out(rows, by_truth)
    assert ([row.proof for row in winners], matches) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("scores", "loser"),
    [
        ((1.0, 0.0), "b"),
        ((0.0, 1.0), "a"),
        ((0.0, 0.0), "b"),
        ((0.5, 1.0), "a"),
        ((None, 1.0), "a"),
        ((None, None), "b"),
    ],
)
def test_both_orders_count(scores: tuple[float | None, float | None], loser: str) -> None:
    pair = accepted("a", 1.0, [1.0]), accepted("b", 1.0, [1.0])
    assert Match(*pair, scores).loser.proof == loser


def test_the_same_place_in_both_orders_is_a_contradiction() -> None:
    pair = accepted("a", 1.0, [1.0]), accepted("b", 1.0, [1.0])
    every = [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (None, None)]
    assert [Match(*pair, scores).is_contradictory for scores in every] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_figures_before_and_after() -> None:
    rows = [
        accepted("a", 0.0, [1.0, 1.0]),
        accepted("b", 1.0, [1.0, 0.5]),
        accepted("c", 0.0, [1.0, 1.0], "Q"),
        judged(0.0, [0.0], proof="d", problem="R"),
    ]
    found = knock_out_figures(rows, *knock_out(rows, by_truth))
    assert {name: figure.value for name, figure in found.items()} == {
        "any_wrong": 0.75,
        "highest_mean_wrong": 1.0,
        "winner_wrong": 0.5,
        "false_accept_rate_before": pytest.approx(2 / 3),
        "false_accept_rate_after": pytest.approx(1 / 3),
        "contradictory": 0.0,
    }


def test_a_pack_without_a_rival_compares_nothing() -> None:
    spec = RunSpec(name="r1", problems=Problems(material=True, has_proofs=True))
    assert comparing_spec(spec, "math-pairwise").name == "r1-knock-out"
    with pytest.raises(ConfigError, match="'math' compares no proofs"):
        comparing_spec(spec, "math")


def test_the_most_comparisons_are_two_for_each_loser() -> None:
    cases = [
        GivenCase(
            question="q",
            solution=f"{number}",
            graded=PeoplesGrade(share=1, score=1.0, problem="PQ"[number % 2]),
        )
        for number in range(5)
    ]
    assert len(most_comparisons(cases)) == 2 * (2 + 1)
