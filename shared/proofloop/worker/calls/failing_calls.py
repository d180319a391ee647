"""Failures that a retry may fix: an engine that answers no call of a role, or one call that fails
while others of its role are answered.

An engine that knows the cause decides itself, without this module. All times are of this process:
another process that gets the message counts anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from proofloop.schema.records import ModelRole

MOST_ROUNDS = 5
"""A call is given up when it failed in so many rounds, each after other calls of its role were
answered.

In each round the engine attempts it as often as its own settings say.
"""


@dataclass(frozen=True)
class FailureTimes:
    """All in seconds."""

    silence_s: float = 30.0
    """A run whose role had no answer for so long while its engine fails is warned of, and again
    after as long.
    """

    longest_busy_s: float = 86400.0
    """A call is given up that a busy server refused for so long, while other calls of its role were
    answered.
    """

    forget_s: float = 6 * 3600.0
    """A call that has not failed here for so long is forgotten: another process may have got its
    answer.
    """

    tried_s: float = 30.0
    """How long it counts that a trial call was, or was not, answered."""


DEFAULT_TIMES = FailureTimes()


@dataclass
class _Role:
    """The failures of one role of a run, in seconds of the monotonic clock; -1 for never. `silent`:
    the time of the first failure since the last answer.
    """

    answered: float = -1.0
    silent: float | None = None
    said: float = -1.0
    tried: float = -1.0


@dataclass
class _Failing:
    """A failing call: the number of rounds in which other calls were answered, and the time of its
    last failure. `busy_s`: the seconds for which a busy server refused it while other calls were
    answered.
    """

    rounds: int
    last: float
    busy_s: float = 0.0


class FailingCalls:
    """The failing calls and roles of this process. Safe to share between threads."""

    def __init__(
        self,
        times: FailureTimes = DEFAULT_TIMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.times, self._clock = times, clock
        self._roles: dict[tuple[str, ModelRole], _Role] = {}
        self._calls: dict[str, _Failing] = {}
        self._lock = threading.Lock()
        self._trying = threading.Lock()

    def answered(self, run_id: str, role: ModelRole, call: str) -> None:
        with self._lock:
            of_role = self._roles.setdefault((run_id, role), _Role())
            of_role.answered, of_role.silent = self._clock(), None
            self._calls.pop(call, None)

    def failed(
        self, run_id: str, role: ModelRole, call: str, try_another: Callable[[], bool]
    ) -> int:
        """Count a failure. Returns the number of rounds in which this call failed while others were
        answered; 1 for the first.

        `try_another` makes a trial call. It is used if no other call was answered since the call's
        last failure, but some were before.
        """
        with self._lock:
            of_role, failing, since = self._noted(run_id, role, call)
            is_first = failing.rounds == 0
        are_others = (
            is_first or of_role.answered > since or self._is_tried(of_role, since, try_another)
        )
        with self._lock:
            failing.rounds += are_others
            failing.last = self._clock()
            return failing.rounds

    def refused_as_busy(self, run_id: str, role: ModelRole, call: str) -> float:
        """Count a refusal. Returns the seconds for which this call was refused as busy while others
        were answered. A call does not cause load, so this is not a round.
        """
        with self._lock:
            of_role, failing, since = self._noted(run_id, role, call)
            if of_role.answered > since:
                failing.busy_s += failing.last - since
            return failing.busy_s

    def _noted(self, run_id: str, role: ModelRole, call: str) -> tuple[_Role, _Failing, float]:
        """Note a failure. Returns the state of role and call, and the time of the call's previous
        failure. Calls are kept in the order of their last failure, so the oldest are found at once.
        """
        now = self._clock()
        of_role = self._roles.setdefault((run_id, role), _Role())
        of_role.silent = now if of_role.silent is None else of_role.silent
        failing = self._calls.pop(call, None) or _Failing(0, now)
        while (
            self._calls
            and (oldest := next(iter(self._calls.items())))[1].last < now - self.times.forget_s
        ):
            del self._calls[oldest[0]]
        self._calls[call] = failing
        since, failing.last = failing.last, now
        return of_role, failing, since

    def given_up(self, call: str) -> None:
        with self._lock:
            self._calls.pop(call, None)

    def silence(self, run_id: str, role: ModelRole) -> str | None:
        """The time without an answer of the role, in words; None if no warning is due."""
        with self._lock:
            of_role, now = self._roles.setdefault((run_id, role), _Role()), self._clock()
            if (
                of_role.silent is None
                or now - max(of_role.silent, of_role.said) < self.times.silence_s
            ):
                return None
            of_role.said, silent_s = now, now - of_role.silent
        return (
            f"{datetime.fromtimestamp(time.time() - silent_s, UTC):%Y-%m-%d %H:%M:%S} UTC, for"
            f" {silent_s:.0f} s"
        )

    def _is_tried(self, of_role: _Role, since: float, try_another: Callable[[], bool]) -> bool:
        """Whether a trial call is answered. One trial serves all calls that failed at about the
        same time.
        """
        if of_role.answered < 0:
            return False
        with self._trying:
            if self._clock() - of_role.tried > self.times.tried_s:
                is_answered = try_another()
                # After the trial: those that waited for it need no trial of their own.
                of_role.tried = self._clock()
                if is_answered:
                    with self._lock:
                        of_role.answered, of_role.silent = of_role.tried, None
        return of_role.answered > since
