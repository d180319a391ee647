"""Acceptance rules, and the threshold that accepts a wanted share of proofs."""

from __future__ import annotations

import pytest

from proofloop.method.acceptance import (
    Threshold,
    chosen_threshold,
    decide_by_strength,
    rules,
)
from proofloop.schema.records import Judgement
from tests.builders import judgement

UNREAD = judgement(0, None)
GOOD = judgement(0)
MINOR = judgement(0, 0.5, confirmed=True)
BAD = judgement(0, 0.0, confirmed=True)
ALARM = judgement(0, 0.0, confirmed=False)


def strengths(*judged: Judgement, k: int = 2) -> dict[str, float | None]:
    return {name: rule(judged) for name, rule in rules(k, has_meta=True).items()}


def test_each_rule_on_a_mixed_proof() -> None:
    assert strengths(GOOD, GOOD, MINOR, BAD) == {
        "mean": 0.625,
        "minimum": 0.0,
        "unanimous": 0.0,
        "majority": 1.0,
        "quorum": None,
        "judged_mean": 0.625,
    }


def test_the_quorum_rejects_with_k_confirmed_critiques() -> None:
    assert strengths(GOOD, BAD, BAD)["quorum"] == 0.0
    assert strengths(GOOD, GOOD, BAD, k=1)["quorum"] == 0.0


def test_alarms_that_are_not_confirmed_do_not_count() -> None:
    found = strengths(GOOD, ALARM, ALARM)
    assert (found["mean"], found["majority"]) == (1 / 3, 0.0)
    assert (found["judged_mean"], found["quorum"]) == (1.0, 1.0)


def test_an_unreadable_critique_is_no_zero_and_no_consent() -> None:
    found = strengths(GOOD, GOOD, UNREAD)
    assert (found["mean"], found["minimum"], found["unanimous"]) == (1.0, 1.0, 0.0)
    nothing = strengths(UNREAD, UNREAD)
    assert nothing["mean"] is nothing["minimum"] is nothing["majority"] is None


def test_without_meta_critiques_there_are_no_rules_about_them() -> None:
    assert list(rules(2, has_meta=False)) == ["mean", "minimum", "unanimous", "majority"]


@pytest.mark.parametrize(
    ("known", "acceptance", "expected"),
    [
        ([1.0, 0.75, 0.5, 0.25], 0.5, Threshold(0.75, 0.5)),
        ([1.0, 0.75, 0.5, 0.25], 0.6, Threshold(0.75, 0.5)),
        ([1.0, 1.0, 1.0, 0.25], 0.5, Threshold(1.0, 0.75)),  # each threshold accepts more
        ([None, None, 0.5, 1.0], 0.5, Threshold(0.5, 0.5)),
        ([0.0, 0.0], 1.0, Threshold(1.0, 0.0)),  # a strength of 0 is never accepted
        ([], 0.5, Threshold(1.0, 0.0)),
    ],
)
def test_the_threshold_for_a_wanted_acceptance_rate(
    known: list[float | None], acceptance: float, expected: Threshold
) -> None:
    assert chosen_threshold(known, acceptance) == expected


@pytest.mark.parametrize(
    ("rule", "scores", "outcome", "score", "critiques"),
    [
        ("mean", [1.0, 1.0, 0.5, 1.0], "accepted", 1.0, (0, 1, 3)),
        ("mean", [1.0, 1.0, 0.0, 1.0], "rejected", 0.0, (2,)),
        ("mean", [1.0, 1.0, 1.0, None], "accepted", 1.0, (0, 1, 2)),
        ("minimum", [1.0, 0.5, 0.5, 1.0], "rejected", 0.5, (1, 2)),
        ("minimum", [1.0, 1.0, 1.0, None], "accepted", 1.0, (0, 1, 2)),
        ("unanimous", [1.0, 1.0, 1.0, None], "undecided", None, ()),
        ("unanimous", [1.0, 1.0, 1.0, 1.0], "accepted", 1.0, (0, 1, 2, 3)),
        ("mean", [1.0, 1.0, None, None], "undecided", None, ()),
    ],
)
def test_the_label_of_a_rule_by_strength(
    rule: str,
    scores: list[float | None],
    outcome: str,
    score: float | None,
    critiques: tuple[int, ...],
) -> None:
    judged = [judgement(index, each) for index, each in enumerate(scores)]
    found = decide_by_strength(judged, rule=rule, n=4, accept_at=0.85)
    assert found is not None
    assert (found.outcome, found.score, found.critiques) == (outcome, score, critiques)
    assert found.solved == (scores == [1.0] * 4)


def test_a_rule_by_strength_waits_for_all_critiques() -> None:
    assert decide_by_strength([judgement(0, 0.0)], rule="minimum", n=2) is None
