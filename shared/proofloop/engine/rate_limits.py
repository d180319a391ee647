"""Rate limits of a server: those that the user sets, and pauses that the server requests. No
I/O.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

Clock = Callable[[], float]

MINUTE_S = 60.0
BURST_S = 1.0
"""The burst after a quiet time: as much as the limit allows in this time."""

UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
LONGEST_RESET_S = 1e6
"""A larger number in a header is a Unix time, not a duration."""


class TokenBucket:
    """Allows `per_minute` units on average; None means no limit. One call may overdraw; the next
    one waits.
    """

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self._per_s = per_minute / MINUTE_S if per_minute else 0.0
        self._clock = clock
        self._level, self._at = 0.0, clock()

    def wait_s(self) -> float:
        """Seconds until the level is no longer negative."""
        if not self._per_s:
            return 0.0
        self._fill()
        return max(0.0, -self._level / self._per_s)

    def take(self, amount: float) -> None:
        """A negative amount puts units back."""
        if self._per_s:
            self._fill()
            self._level -= amount

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._per_s * BURST_S, self._level + (now - self._at) * self._per_s)
        self._at = now


class RateLimiter:
    """The limits of all calls to one account. Safe to use from many threads."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._requests = TokenBucket(requests_per_minute, clock)
        self._tokens = TokenBucket(tokens_per_minute, clock)
        self._clock = clock
        self._paused_until = clock()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Seconds until the next request may be sent."""
        with self._lock:
            return self._wait_s()

    def take(self, tokens: int) -> float:
        """Count a request of about this many tokens (prompt and answer) and return 0: send it now.

        If a limit forbids it, count nothing and return the seconds to wait before the next try.
        """
        with self._lock:
            if wait_s := self._wait_s():
                return wait_s
            self._requests.take(1)
            self._tokens.take(tokens)
            return 0.0

    def _wait_s(self) -> float:
        return max(
            0.0, self._paused_until - self._clock(), self._requests.wait_s(), self._tokens.wait_s()
        )

    def correct(self, expected_tokens: int, tokens: int) -> None:
        """Replace the expected tokens of a request by the tokens that it used."""
        with self._lock:
            self._tokens.take(tokens - expected_tokens)

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def obey_headers(self, headers: Mapping[str, str], longest_s: float) -> None:
        """Pause if the server's x-ratelimit headers report that nothing remains, at most
        `longest_s`.
        """
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
                reset_s = duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
                self.pause(min(reset_s or 0.0, longest_s))


_shared: WeakValueDictionary[tuple[str, float | None, float | None], RateLimiter] = (
    WeakValueDictionary()
)
_shared_lock = threading.Lock()


def shared_rate_limiter(
    account: str, requests_per_minute: float | None, tokens_per_minute: float | None
) -> RateLimiter:
    """The rate limiter that all engines of this process share for this account and these limits."""
    name = account, requests_per_minute, tokens_per_minute
    with _shared_lock:
        if (found := _shared.get(name)) is None:
            found = _shared[name] = RateLimiter(requests_per_minute, tokens_per_minute)
        return found


def duration_s(text: str) -> float | None:
    """The seconds of "6m0s", "20ms", "1.5" and the like; None for anything else."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text) if float(text) <= LONGEST_RESET_S else None
    number_and_unit = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|h|m|s)"
    if not re.fullmatch(f"(?:{number_and_unit})+", text):
        return None
    return sum(float(number) * UNITS_S[unit] for number, unit in re.findall(number_and_unit, text))
