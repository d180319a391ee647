"""The watch reads the figures of steps."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from proofloop.config.curriculum_file import Watch
from proofloop.curriculum.watch import check
from proofloop.errors import HintedError

HONEST = {
    "readable": 1.0,
    "mean_length": 10.0,
    "mean_reward": 0.6,
    "groups": 8.0,
    "groups_without_signal": 3.0,
    "always-0 verifier": 0.4,
    "always-1 verifier": 0.5,
}
"""The figures of a step in which nothing is wrong."""


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"always-1 verifier": 1.0}, "always-1 verifier: 100%"),
        ({"always-0 verifier": 0.95}, "always-0 verifier: 95%"),
        ({"always-0.5 meta-verifier": 1.0}, "always-0.5 meta-verifier: 100%"),
        ({"readable": 0.5}, "format drift: 50% of the answers are readable"),
        ({"mean_length": 40.0}, "length drift: 40 tokens per answer, 10 at the start"),
        ({"mean_length": 2.0}, "length drift: 2 tokens"),
    ],
)
def test_the_watch_stops_a_stage_whose_reward_is_gamed(planted: Mapping[str, float], said: str):
    with pytest.raises(HintedError, match=rf"stage 1-verifier was stopped: {said}.*\nhint: read"):
        check("1-verifier", [HONEST] * 5 + [HONEST | planted] * 5, Watch())


def test_too_many_failed_calls_stop_a_stage():
    failing = {**HONEST, "failed": 0.06}
    said = r"stage 1-verifier was stopped: 6% of the model calls had no answer .*\nhint: .*engine"
    with pytest.raises(HintedError, match=said):
        check("1-verifier", [HONEST] * 5 + [failing] * 5, Watch())
    check("1-verifier", [failing] * 5, Watch(failed=0.1))


def test_the_watch_lets_an_honest_stage_go_on():
    check("1-verifier", [HONEST] * 10, Watch())
    check("1-verifier", [HONEST] * 7 + [{**HONEST, "always-1 verifier": 1.0}] * 3, Watch())


def test_a_stage_whose_first_steps_have_no_signal_is_stopped():
    mute = {**HONEST, "groups_without_signal": 8.0, "readable": 0.0, "mean_reward": 0.0}
    said = (
        r"stage 1-verifier was stopped: 40 of 40 groups have no signal: .*; 0% of the answers are"
        r" readable, the mean reward is 0.000 .*\nhint: .*\[cold_start\] demonstrations"
    )
    with pytest.raises(HintedError, match=said):
        check("1-verifier", [mute] * 5, Watch())
    check("1-verifier", [mute] * 4, Watch())  # too few steps to judge by


def test_no_signal_is_no_fault_later_nor_where_all_is_right():
    silent = {**HONEST, "groups_without_signal": 8.0}
    check("1-verifier", [HONEST] * 5 + [silent] * 5, Watch())
    check("1-generator", [{**silent, "mean_reward": 1.0}] * 5, Watch())
    check("1-verifier", [silent] * 5, Watch(no_signal=1.0))
