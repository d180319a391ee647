"""The autoscaler's rule by itself: windows, policies, tolerance, waking, going to sleep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helm.autoscaler import Memory, Pace, Rule, decide, ideal_s, rule_of
from tests.helm.chart import render, values_of

RULE = Rule(
    value=100,
    activation=0,
    least=1,
    most=8,
    polling_s=15,
    cooldown_s=600,
    up=Pace(0, 4, 60),
    down=Pace(600, 1, 120),
)


def test_the_numbers_are_those_of_the_rendered_object() -> None:
    scaled = render(values_of("production"))["ScaledObject/proofloop-verifier"]
    assert rule_of(scaled) == Rule(
        value=256,
        activation=0,
        least=0,
        most=12,
        polling_s=15,
        cooldown_s=600,
        up=Pace(0, 4, 60),
        down=Pace(600, 1, 120),
    )


def test_a_policy_that_counts_no_pods_is_refused() -> None:
    scaled = render(values_of("production"))["ScaledObject/proofloop-verifier"]
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behavior = {
        **behavior,
        "scaleUp": {**behavior["scaleUp"], "policies": [{"type": "Percent", "value": 100}]},
    }
    advanced = {"horizontalPodAutoscalerConfig": {"behavior": behavior}}
    with pytest.raises(ValueError, match="Percent"):
        rule_of({**scaled, "spec": {**scaled["spec"], "advanced": advanced}})


@pytest.mark.parametrize(
    ("messages", "expected"), [(0, 1), (109, 1), (111, 2), (201, 3), (450, 5), (10_000, 5)]
)
def test_the_backlog_decides_within_what_a_period_allows(messages: int, expected: int) -> None:
    assert followed(RULE, 1, [messages]) == [expected]


def test_growth_waits_for_the_next_period() -> None:
    assert followed(RULE, 1, [10_000] * 6) == [5, 5, 5, 5, 8, 8]


def test_growth_waits_for_its_window_and_forgets_a_short_burst() -> None:
    patient = replace(RULE, up=Pace(60, 4, 60))
    assert followed(patient, 1, [300] * 6) == [1, 1, 1, 1, 3, 3]
    assert followed(patient, 1, [300, 300, 50, 300, 300, 300, 300]) == [1, 1, 1, 1, 1, 1, 3]


def test_shrinking_waits_for_its_window_and_then_goes_pod_by_pod() -> None:
    pods = followed(RULE, 6, [600] + [0] * 100)
    falls = [15 * look for look in range(1, len(pods)) if pods[look] < pods[look - 1]]
    assert falls == [600, 720, 840, 960, 1080]
    assert pods[-1] == 1


def test_a_busy_moment_in_the_window_keeps_the_pods() -> None:
    assert set(followed(RULE, 6, [600, *[0] * 39, 600, *[0] * 39])) == {6}


def test_a_role_that_sleeps_wakes_with_one_pod_above_the_activation() -> None:
    sleeping = replace(RULE, least=0, activation=5)
    assert followed(sleeping, 0, [0, 5, 6, 1000]) == [0, 0, 1, 5]


def test_a_role_falls_asleep_when_it_was_inactive_for_the_cooldown() -> None:
    sleeping = replace(RULE, least=0, cooldown_s=60)
    assert followed(sleeping, 3, [300, 0, 0, 0, 0, 0]) == [3, 3, 3, 3, 3, 0]
    assert followed(RULE, 3, [300] + [0] * 5) == [3] * 6


def test_the_same_rule_can_run_faster() -> None:
    backlog = [900] * 3 + [0] * 100
    assert followed(RULE.faster(10), 1, backlog) == followed(RULE, 1, backlog)


def test_the_ideal_is_what_the_rule_allows_without_any_idle_slot() -> None:
    # Five pods from the first moment on, for a whole period.
    assert ideal_s(RULE, 10, 5 * 10 * 60) == 60
    assert ideal_s(RULE, 10, 5 * 10 * 60 + 8 * 10 * 7) == 67


def followed(rule: Rule, pods: int, backlog: list[int]) -> list[int]:
    """The pods after each look."""
    memory, seen = Memory(), []
    for look, messages in enumerate(backlog):
        pods, memory = decide(rule, memory, look * rule.polling_s, pods, messages)
        seen.append(pods)
    return seen
