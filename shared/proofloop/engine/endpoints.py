"""Several endpoints as one engine: a call's seed and the weights choose one; while that is away,
another answers.

The choice needs no memory: the same call goes to the same endpoint again, in another process and
after a restart too.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from proofloop.engine.base import Call, Engine, Generation, GenerationRequest
from proofloop.errors import CallRefused, EngineError

log = structlog.get_logger(__name__)

AWAY_S, LONGEST_AWAY_S = 30.0, 480.0
"""How long an endpoint that failed gets no new calls: at first, and at most, doubling from failure
to failure.
"""


@dataclass(frozen=True)
class Endpoint:
    """One of the servers. Of all calls it gets `weight` over the sum of all weights."""

    name: str
    engine: Engine
    weight: float = 1.0


class EndpointsEngine:
    """Safe to use from many threads. The endpoints' names differ."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.endpoints = endpoints
        self._absences = Absences()

    def submit(self, request: GenerationRequest) -> Call:
        return _RoutedCall(
            request, self._absences.last(in_order(self.endpoints, request.seed)), self._absences
        )

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.engine.close()


def members(engine: Engine) -> tuple[Engine, ...]:
    """The engines of the endpoints; of an engine without endpoints itself."""
    if isinstance(engine, EndpointsEngine):
        return tuple(endpoint.engine for endpoint in engine.endpoints)
    return (engine,)


def in_order(endpoints: tuple[Endpoint, ...], seed: int) -> list[Endpoint]:
    """The endpoints as a call of that seed prefers them, by weighted rendezvous hashing."""
    return sorted(endpoints, key=lambda endpoint: _distance(endpoint, seed))


def _distance(endpoint: Endpoint, seed: int) -> float:
    hashed = hashlib.blake2b(f"{seed}\n{endpoint.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(hashed) + 1) / (2**64 + 1)  # in (0, 1)
    return -math.log(share) / endpoint.weight


class Absences:
    """Which endpoints failed a moment ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._away_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def last(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        """The same endpoints, those that are away behind the others."""
        now = self._clock()
        with self._lock:
            return sorted(endpoints, key=lambda endpoint: now < self._until.get(endpoint.name, 0.0))

    def failed(self, endpoint: Endpoint, error: EngineError) -> None:
        """Calls that fail while the endpoint counts as away already are no news."""
        now, name = self._clock(), endpoint.name
        with self._lock:
            if now < self._until.get(name, 0.0):
                return
            away_s = min(LONGEST_AWAY_S, 2 * self._away_s[name]) if name in self._away_s else AWAY_S
            self._away_s[name], self._until[name] = away_s, now + away_s
        log.warning("endpoint_away", endpoint=name, reason=str(error), others_answer_for_s=away_s)

    def answered(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._until.pop(endpoint.name, None)
            self._away_s.pop(endpoint.name, None)


class _RoutedCall:
    """One call, at one endpoint after the other until one answers it or refuses it."""

    def __init__(
        self, request: GenerationRequest, order: list[Endpoint], absences: Absences
    ) -> None:
        self._request, self._order, self._absences = request, order, absences
        self._errors: list[EngineError] = []
        self._is_cancelled = False
        self._lock = threading.Lock()
        self._submit()

    def result(self, timeout_s: float | None = None) -> Generation:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                call, endpoint = self._call, self._order[len(self._errors)]
            try:
                answer = call.result(
                    None if deadline is None else max(0.0, deadline - time.monotonic())
                )
            except CallRefused:
                raise
            except EngineError as error:
                self._move(call, endpoint, error)
                continue
            if answer.finish_reason != "cancelled":
                self._absences.answered(endpoint)
            return answer

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            self._call.cancel()

    def _move(self, call: Call, endpoint: Endpoint, error: EngineError) -> None:
        """Ask the next endpoint, unless another thread has. Raises EngineError where all have
        failed.
        """
        with self._lock:
            if call is not self._call:
                return
            self._absences.failed(endpoint, error)
            if self._is_cancelled or len(self._errors) + 1 >= len(self._order):
                raise _worth_a_retry([*self._errors, error])
            self._errors.append(error)
            self._submit()

    def _submit(self) -> None:
        self._call = self._order[len(self._errors)].engine.submit(self._request)


def _worth_a_retry(errors: list[EngineError]) -> EngineError:
    """The error to raise for all: one of load, else one after which another attempt may help, where
    there is one.
    """
    return next((error for error in errors if error.is_load), None) or next(
        (error for error in errors if error.retryable), errors[0]
    )
