"""Which calls are given up, by what is known of them and of the others of their role."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proofloop.worker.calls import failing_calls as failing
from proofloop.worker.calls.failing_calls import FailingCalls

RUN = "r"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(failing.time, "monotonic", lambda: now[0])
    return now


def fail(calls: FailingCalls, call: str) -> int:
    return calls.failed(RUN, "verifier", call, lambda: False)


def answer(calls: FailingCalls, call: str = "another") -> None:
    calls.answered(RUN, "verifier", call)


def test_load_counts_no_round(clock: list[float]) -> None:
    calls = FailingCalls()
    for _ in range(10):
        clock[0] += 1
        answer(calls)
        clock[0] += 1
        calls.refused_as_busy(RUN, "verifier", "a")
    assert fail(calls, "a") == 1


def test_the_time_at_a_busy_server_counts_while_others_are_answered(clock: list[float]) -> None:
    calls = FailingCalls()
    seconds = []
    for is_answered in (True, True, False, True):
        clock[0] += 4
        if is_answered:
            answer(calls)
        clock[0] += 6
        seconds.append(calls.refused_as_busy(RUN, "verifier", "a"))
    assert seconds == [0.0, 10.0, 10.0, 20.0]


def test_a_call_that_has_not_failed_for_long_is_forgotten(clock: list[float]) -> None:
    calls = FailingCalls()
    for number in range(100):
        fail(calls, f"call {number}")
        clock[0] += failing.FORGET_S / 10
    assert len(calls._calls) <= 11


def test_a_call_that_keeps_failing_is_not_forgotten(clock: list[float]) -> None:
    calls, rounds = FailingCalls(), []
    for _ in range(3):
        clock[0] += 1
        answer(calls)
        clock[0] += failing.FORGET_S - 2
        fail(calls, "another")
        rounds.append(fail(calls, "a"))
    assert rounds == [1, 2, 3]


def test_one_trial_of_a_silent_server_serves_all_who_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trial takes longer than its result counts for, as both last 30 s."""
    monkeypatch.setattr(failing, "TRIED_S", 1.5)
    calls, trials, ready = FailingCalls(), [], threading.Barrier(8)
    answer(calls)

    def try_another() -> bool:
        trials.append(time.monotonic())
        time.sleep(1.7)
        return False

    def fail_twice(call: str) -> int:
        calls.failed(RUN, "verifier", call, try_another)
        ready.wait(10)
        return calls.failed(RUN, "verifier", call, try_another)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fail_twice, map(str, range(8)))) == [1] * 8
    assert len(trials) == 1
