"""How fast an address may be asked: limits that the user sets, and pauses that the server asks for.
No I/O.
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
"""What may pass at once after a quiet time: as much as the limit allows in this time."""

UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
LONGEST_RESET_S = 1e6
"""A larger number in a header is a date, not a duration."""


class Bucket:
    """Lets `per_minute` pass a minute on average; None: no limit. One call may go into debt, the
    next one waits.
    """

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self._per_s = per_minute / MINUTE_S if per_minute else 0.0
        self._clock = clock
        self._level, self._at = 0.0, clock()

    def wait_s(self) -> float:
        """Seconds until the debt is paid."""
        self._fill()
        return max(0.0, -self._level / self._per_s) if self._per_s else 0.0

    def take(self, amount: float) -> None:
        """A negative amount gives back."""
        self._fill()
        self._level -= amount if self._per_s else 0.0

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._per_s * BURST_S, self._level + (now - self._at) * self._per_s)
        self._at = now


class Brakes:
    """One for all calls to an address. Safe to use from many threads."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._requests = Bucket(requests_per_minute, clock)
        self._tokens = Bucket(tokens_per_minute, clock)
        self._clock = clock
        self._paused_until = clock()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Seconds until the next request may be sent."""
        with self._lock:
            return self._wait_s()

    def take(self, tokens: int) -> float:
        """If this returns 0, a request of about so many tokens (prompt and answer) may be sent, and
        is counted.

        Else nothing is counted: ask again after so many seconds.
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
        """The request cost so many tokens in truth."""
        with self._lock:
            self._tokens.take(tokens - expected_tokens)

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def heed(self, headers: Mapping[str, str], longest_s: float) -> None:
        """Pause where the server's x-ratelimit headers say that nothing is left, but no longer than
        `longest_s`.
        """
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
                reset_s = duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
                self.pause(min(reset_s or 0.0, longest_s))


_shared: WeakValueDictionary[tuple[str, float | None, float | None], Brakes] = WeakValueDictionary()
_shared_lock = threading.Lock()


def brakes_of(
    account: str, requests_per_minute: float | None, tokens_per_minute: float | None
) -> Brakes:
    """The brakes of all engines of this process that ask with the same account under the same
    limits.
    """
    name = account, requests_per_minute, tokens_per_minute
    with _shared_lock:
        if (found := _shared.get(name)) is None:
            found = _shared[name] = Brakes(requests_per_minute, tokens_per_minute)
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
