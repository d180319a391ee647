"""How fast an engine may ask, on a clock of the test's own."""

from __future__ import annotations

import pytest

from proofloop.engine.rate_limits import RateLimiter, duration_s, shared_rate_limiter


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def starts_in(rate_limiter: RateLimiter, clock: Clock, seconds: float, tokens: int = 0) -> int:
    """How many requests of so many tokens start in that time, each as early as it may."""
    until, count = clock.now_s + seconds, 0
    while True:
        clock.now_s += rate_limiter.wait_s() + 1e-9
        if clock.now_s >= until:
            return count
        rate_limiter.take(tokens)
        count += 1


def test_without_limits_nothing_waits() -> None:
    rate_limiter = RateLimiter(None, None)
    rate_limiter.take(10**9)
    assert rate_limiter.wait_s() == 0


@pytest.mark.parametrize("per_minute", [6, 60, 600])
def test_requests_are_spread_over_the_minute(per_minute: float) -> None:
    clock = Clock()
    rate_limiter = RateLimiter(per_minute, None, clock)
    assert abs(starts_in(rate_limiter, clock, 600) - 10 * per_minute) <= 1 + per_minute / 60


def test_a_quiet_time_saves_up_one_second_only() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(600, None, clock)
    clock.now_s += 3600
    # Ten of one second, and one that goes into debt.
    assert starts_in(rate_limiter, clock, 0.05) == 11


def test_tokens_are_spread_over_the_minute() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(None, 60_000, clock)
    assert abs(starts_in(rate_limiter, clock, 600, tokens=5000) - 120) <= 1


def test_an_answer_that_cost_less_gives_back_and_one_that_cost_more_delays() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(None, 60_000, clock)
    rate_limiter.take(10_000)
    assert rate_limiter.wait_s() == pytest.approx(10)
    rate_limiter.correct(10_000, 4000)
    assert rate_limiter.wait_s() == pytest.approx(4)
    rate_limiter.correct(4000, 7000)
    assert rate_limiter.wait_s() == pytest.approx(7)


def test_a_pause_holds_and_a_shorter_one_does_not_end_it() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(None, None, clock)
    rate_limiter.pause(5)
    rate_limiter.pause(1)
    clock.now_s += 2
    assert rate_limiter.wait_s() == pytest.approx(3)


def test_a_request_that_has_to_wait_is_not_counted() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(60, None, clock)
    assert [rate_limiter.take(1) for _ in range(3)] == [0, 1, 1]


def test_a_rate_limiter_is_shared_by_an_account_and_its_limits() -> None:
    one = shared_rate_limiter("http://a", 60, None)
    assert shared_rate_limiter("http://a", 60, None) is one
    assert (
        shared_rate_limiter("http://b", 60, None) is not one
        and shared_rate_limiter("http://a", 61, None) is not one
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0.5s"}, 60.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "20s"}, 0),
        ({"x-ratelimit-remaining-tokens": "0"}, 0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, 0),
        ({}, 0),
    ],
)
def test_a_server_without_anything_left_is_waited_for(
    headers: dict[str, str], expected: float
) -> None:
    rate_limiter = RateLimiter(None, None, Clock())
    rate_limiter.obey_headers(headers, longest_s=60)
    assert rate_limiter.wait_s() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6m0s", 360), ("1h2m3s", 3723), ("20ms", 0.02), ("1.5", 1.5), ("7.66s", 7.66), (" 2 ", 2)],
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert duration_s(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "1764432000", "2026-11-29T18:00:00Z", "s", "-1s", "1d", "9" * 400, "nan"]
)
def test_what_is_no_duration_is_not_read(text: str) -> None:
    assert duration_s(text) is None
