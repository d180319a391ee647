"""Which calls are given up, by what is known of them and of the others of their role."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from proofloop.worker.calls.failing_calls import DEFAULT_TIMES, FailingCalls, FailureTimes

RUN = "r"


class Clock:
    """A clock that the test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def fail(calls: FailingCalls, call: str) -> int:
    return calls.failed(RUN, "verifier", call, lambda: False)


def answer(calls: FailingCalls, call: str = "another") -> None:
    calls.answered(RUN, "verifier", call)


def test_load_counts_no_round() -> None:
    clock = Clock()
    calls = FailingCalls(clock=clock)
    for _ in range(10):
        clock.now_s += 1
        answer(calls)
        clock.now_s += 1
        calls.refused_as_busy(RUN, "verifier", "a")
    assert fail(calls, "a") == 1


def test_the_time_at_a_busy_server_counts_while_others_are_answered() -> None:
    clock = Clock()
    calls = FailingCalls(clock=clock)
    seconds = []
    for is_answered in (True, True, False, True):
        clock.now_s += 4
        if is_answered:
            answer(calls)
        clock.now_s += 6
        seconds.append(calls.refused_as_busy(RUN, "verifier", "a"))
    assert seconds == [0.0, 10.0, 10.0, 20.0]


def test_a_call_that_has_not_failed_for_long_is_forgotten() -> None:
    clock = Clock()
    calls = FailingCalls(clock=clock)
    for number in range(100):
        fail(calls, f"call {number}")
        clock.now_s += DEFAULT_TIMES.forget_s / 10
    assert len(calls._calls) <= 11


def test_a_call_that_keeps_failing_is_not_forgotten() -> None:
    clock = Clock()
    calls, rounds = FailingCalls(clock=clock), []
    for _ in range(3):
        clock.now_s += 1
        answer(calls)
        clock.now_s += DEFAULT_TIMES.forget_s - 2
        fail(calls, "another")
        rounds.append(fail(calls, "a"))
    assert rounds == [1, 2, 3]


def test_one_trial_of_a_silent_server_serves_all_who_wait_for_it() -> None:
    """The trial takes longer than its result counts for, as both last 30 s."""
    clock, ready = Clock(), threading.Barrier(8)
    calls, trials = FailingCalls(FailureTimes(tried_s=30.0), clock), list[float]()
    answer(calls)

    def try_another() -> bool:
        trials.append(clock.now_s)
        clock.now_s += 31.0
        return False

    def fail_twice(call: str) -> int:
        calls.failed(RUN, "verifier", call, try_another)
        ready.wait(60)
        return calls.failed(RUN, "verifier", call, try_another)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fail_twice, map(str, range(8)))) == [1] * 8
    assert len(trials) == 1
