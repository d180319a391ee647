"""The auto-labeling rule, case by case, and that it decides as early as it can and never too
early.
"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofloop.method.label_rule import (
    UNDECIDED,
    Decision,
    decide,
    decide_by_majority,
    decide_by_person,
    grade,
    majority,
)
from proofloop.schema.records import Judgement, Label
from tests.builders import judgement, label, undecided_label

Kind = tuple[float | None, bool | None]
UNREAD: Kind = (None, None)
PRAISE: Kind = (1.0, None)
HALF, HALF_REFUTED = (0.5, True), (0.5, False)
ZERO, ZERO_REFUTED = (0.0, True), (0.0, False)
HALF_OPEN, ZERO_OPEN = (0.5, None), (0.0, None)
KINDS: tuple[Kind, ...] = (
    *(UNREAD, PRAISE, HALF, HALF_REFUTED, HALF_OPEN),
    *(ZERO, ZERO_REFUTED, ZERO_OPEN),
)


def judged(*kinds: Kind) -> list[Judgement]:
    return [judgement(index, score, confirmed) for index, (score, confirmed) in enumerate(kinds)]


def rule(*kinds: Kind, n: int = 0, k: int = 2) -> Decision | None:
    return decide(judged(*kinds), n=n or len(kinds), k=k)


def said(decision: Decision | None) -> tuple[object, ...] | None:
    """What a label says, without which critiques carry it."""
    return decision and (decision.outcome, decision.kind, decision.score, decision.solved)


def rejected(score: float, *critiques: int) -> Decision:
    return Decision("rejected", "rejected_upheld", score, critiques)


def persons(score: float, outcome: str, kind: str, *critiques: int) -> Label:
    return label(score, outcome=outcome, kind=kind, critiques=critiques, by="Emmy Noether")


# -- complete
# --------------------------------------------------------------------------------------------------


def test_label_is_the_lowest_score_when_k_critiques_of_it_are_confirmed() -> None:
    assert rule(ZERO, PRAISE, ZERO, HALF) == rejected(0.0, 0, 2)
    assert rule(HALF, PRAISE, PRAISE, HALF) == rejected(0.5, 0, 3)


def test_the_first_k_confirmed_critiques_carry_the_label() -> None:
    assert rule(ZERO, ZERO_REFUTED, ZERO, ZERO) == rejected(0.0, 0, 2)


def test_label_is_one_if_no_critique_reports_an_issue() -> None:
    assert rule(PRAISE, PRAISE, PRAISE) == Decision(
        "accepted", "accepted", 1.0, (0, 1, 2), solved=True
    )


def test_label_is_one_when_no_issue_is_confirmed() -> None:
    assert rule(ZERO_REFUTED, PRAISE, HALF_REFUTED, PRAISE) == Decision(
        "accepted", "overturned", 1.0, (1, 3)
    )


def test_label_is_undecided_if_too_few_critiques_of_the_lowest_score_are_confirmed() -> None:
    assert rule(ZERO, PRAISE, PRAISE, PRAISE) == UNDECIDED
    assert rule(ZERO_REFUTED, HALF, HALF, HALF) == UNDECIDED
    assert rule(ZERO, HALF, HALF, HALF) == UNDECIDED


def test_one_unread_critique_is_no_issue_but_the_proof_is_not_solved() -> None:
    assert rule(PRAISE, PRAISE, UNREAD) == Decision("accepted", "accepted", 1.0, (0, 1))


@pytest.mark.parametrize("unread", [2, 3, 4])
def test_silence_of_half_the_critiques_proves_nothing(unread: int) -> None:
    assert rule(*[UNREAD] * unread, *[PRAISE] * (4 - unread)) == UNDECIDED


@pytest.mark.parametrize("unsettled", [2, 3, 4])
def test_issues_neither_confirmed_nor_refuted_prove_nothing(unsettled: int) -> None:
    assert rule(*[ZERO_OPEN] * unsettled, *[PRAISE] * (4 - unsettled)) == UNDECIDED
    assert rule(*[HALF_OPEN] * unsettled, *[ZERO_REFUTED] * (4 - unsettled)) == UNDECIDED


def test_one_issue_neither_confirmed_nor_refuted_does_not_reject() -> None:
    assert rule(PRAISE, PRAISE, ZERO_OPEN) == Decision("accepted", "overturned", 1.0, (0, 1))


def test_unread_critiques_do_not_hinder_a_quorum_that_rejects() -> None:
    assert rule(UNREAD, ZERO, UNREAD, ZERO) == rejected(0.0, 1, 3)


def test_a_single_critique_may_be_the_quorum() -> None:
    assert rule(ZERO, k=1) == rejected(0.0, 0)
    assert rule(HALF_REFUTED, k=1) == Decision("accepted", "overturned", 1.0, ())


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), st.integers(1, 6))
def test_a_complete_set_is_always_decided_and_solved_means_n_valid_ones(
    kinds: list[Kind], k: int
) -> None:
    decision = rule(*kinds, k=min(k, len(kinds)))
    assert decision is not None
    assert decision.solved == all(kind == PRAISE for kind in kinds)


@given(st.permutations(judged(ZERO, PRAISE, ZERO, HALF, ZERO, UNREAD)))
def test_the_order_of_arrival_does_not_matter(arrived: list[Judgement]) -> None:
    assert decide(arrived, n=6, k=2) == rejected(0.0, 0, 2)


# -- early
# --------------------------------------------------------------------------------------------------


def test_k_confirmed_zeros_fix_the_label_at_once() -> None:
    assert rule(ZERO, ZERO, n=64) == rejected(0.0, 0, 1)


def test_nothing_else_rejects_or_accepts_early() -> None:
    assert rule(HALF, HALF, HALF, n=5) is None
    assert rule(*[PRAISE] * 63, n=64) is None
    assert rule(ZERO, n=3) is None
    assert rule(n=3) is None


def test_a_quorum_out_of_reach_is_undecided_at_once() -> None:
    assert rule(ZERO, PRAISE, PRAISE, n=4, k=3) == UNDECIDED
    assert rule(HALF, PRAISE, PRAISE, n=4, k=3) == UNDECIDED
    assert rule(ZERO_REFUTED, HALF, HALF, n=4, k=3) == UNDECIDED


def _completions(kinds: tuple[Kind, ...], n: int, k: int) -> set[tuple[object, ...] | None]:
    return {said(rule(*kinds, *rest, k=k)) for rest in product(KINDS, repeat=n - len(kinds))}


@settings(deadline=None)
@given(st.lists(st.sampled_from(KINDS), max_size=5), st.integers(1, 3), st.integers(1, 4))
def test_a_decision_is_made_exactly_when_nothing_that_may_come_can_change_it(
    kinds: list[Kind], missing: int, k: int
) -> None:
    n = len(kinds) + missing
    early, possible = rule(*kinds, n=n, k=min(k, n)), _completions(tuple(kinds), n, min(k, n))
    if early is None:
        assert len(possible) > 1
    else:
        assert possible == {said(early)}


# -- majority
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confirms", "m", "expected"),
    [
        (0, 1, False),
        (1, 1, True),
        (1, 2, False),
        (2, 2, True),
        (1, 3, False),
        (2, 3, True),
        (2, 4, False),
        (3, 4, True),
    ],
)
def test_a_majority_is_more_than_half_of_all_m(confirms: int, m: int, expected: bool) -> None:
    assert majority(confirms, m, m) is expected


@pytest.mark.parametrize("m", range(1, 9))
def test_a_majority_is_fixed_exactly_when_the_rest_cannot_change_it(m: int) -> None:
    for seen in range(m + 1):
        for confirms in range(seen + 1):
            ends = {2 * final > m for final in range(confirms, confirms + m - seen + 1)}
            assert majority(confirms, seen, m) == (ends.pop() if len(ends) == 1 else None)


# -- a person
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "score", "expected"),
    [
        (
            (HALF, ZERO_REFUTED, HALF_REFUTED),
            0.5,
            persons(0.5, "rejected", "rejected_upheld", 0, 2),
        ),
        ((HALF, ZERO_REFUTED, PRAISE), 0.0, persons(0.0, "rejected", "rejected_upheld", 1)),
        ((HALF, PRAISE, UNREAD), 0.0, persons(0.0, "rejected", "rejected_upheld")),
        ((HALF, PRAISE, PRAISE), 1.0, persons(1.0, "accepted", "overturned", 1, 2)),
        ((PRAISE, UNREAD, UNREAD), 1.0, persons(1.0, "accepted", "accepted", 0)),
    ],
)
def test_a_persons_label_is_carried_by_the_critiques_that_gave_the_same_score(
    kinds: tuple[Kind, ...], score: float, expected: Label
) -> None:
    assert (
        decide_by_person(undecided_label(), judged(*kinds), score=score, by="Emmy Noether")
        == expected
    )


def test_the_generators_own_critique_carries_no_label() -> None:
    own = judgement(-1, 1.0)
    assert decide_by_person(undecided_label(), [own], score=1.0, by="E").critiques == ()


@pytest.mark.parametrize(
    ("scores", "decision"),
    [
        ((1.0, 1.0, 0.0), Decision("accepted", "accepted", 1.0, (0, 1))),
        ((1.0, 1.0, 1.0), Decision("accepted", "accepted", 1.0, (0, 1, 2), solved=True)),
        ((1.0, 0.5, 0.5), rejected(0.5, 1, 2)),
        ((1.0, 0.5, 0.0), rejected(0.0, 2)),
        ((1.0, 0.5, None), rejected(0.5, 1)),
        ((1.0, None, None), UNDECIDED),
        ((1.0, 1.0), None),
    ],
)
def test_without_meta_critiques_the_majority_decides(
    scores: tuple[float | None, ...], decision: Decision | None
) -> None:
    found = [judgement(index, score) for index, score in enumerate(scores)]
    assert decide_by_majority(found, n=3) == decision


@pytest.mark.parametrize(
    ("score", "outcome"), [(1.0, "accepted"), (0.5, "rejected"), (None, "undecided")]
)
def test_a_grade_is_the_label(score: float | None, outcome: str) -> None:
    assert said(grade(score)) == (outcome, "graded", score, False)
