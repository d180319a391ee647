"""Several endpoints as one engine: a call's seed and the weights choose the endpoint. While it is
unavailable, another one answers.

The choice keeps no state: a retry goes to the same endpoint, in any process and after a restart.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from proofloop.engine.base import Call, Engine, FutureCall, GenerationRequest
from proofloop.errors import CallRefused, EngineError

log = structlog.get_logger(__name__)

UNAVAILABLE_S, LONGEST_UNAVAILABLE_S = 30.0, 480.0
"""How long a failed endpoint gets no new calls: the first time, and at most. The time doubles with
each failure.
"""


@dataclass(frozen=True)
class Endpoint:
    """One of the servers. Its share of the calls is `weight` over the sum of all weights."""

    name: str
    engine: Engine
    weight: float = 1.0


class EndpointsEngine:
    """Safe to use from many threads. Endpoints must have different names."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.endpoints = endpoints
        self._health = EndpointHealth()

    def submit(self, request: GenerationRequest) -> Call:
        return _RoutedCall(
            request,
            self._health.available_first(in_order(self.endpoints, request.seed)),
            self._health,
        )

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.engine.close()


def endpoint_engines(engine: Engine) -> tuple[Engine, ...]:
    """One engine per endpoint. An engine without endpoints is its own only endpoint."""
    if isinstance(engine, EndpointsEngine):
        return tuple(endpoint.engine for endpoint in engine.endpoints)
    return (engine,)


def in_order(endpoints: tuple[Endpoint, ...], seed: int) -> list[Endpoint]:
    """The endpoints in the order in which a call tries them: weighted rendezvous hashing of its
    seed.
    """
    return sorted(endpoints, key=lambda endpoint: _distance(endpoint, seed))


def _distance(endpoint: Endpoint, seed: int) -> float:
    hashed = hashlib.blake2b(f"{seed}\n{endpoint.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(hashed) + 1) / (2**64 + 1)  # in (0, 1)
    return -math.log(share) / endpoint.weight


class EndpointHealth:
    """The unavailable endpoints, each with the time until its next try."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._unavailable_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def available_first(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        """The same endpoints, the unavailable ones last."""
        now = self._clock()
        with self._lock:
            return sorted(endpoints, key=lambda endpoint: now < self._until.get(endpoint.name, 0.0))

    def record_failure(self, endpoint: Endpoint, error: EngineError) -> None:
        """Mark the endpoint as unavailable. Failures while it is unavailable change nothing."""
        now, name = self._clock(), endpoint.name
        with self._lock:
            if now < self._until.get(name, 0.0):
                return
            unavailable_s = (
                min(LONGEST_UNAVAILABLE_S, 2 * self._unavailable_s[name])
                if name in self._unavailable_s
                else UNAVAILABLE_S
            )
            self._unavailable_s[name], self._until[name] = unavailable_s, now + unavailable_s
        log.warning(
            "endpoint_unavailable",
            endpoint=name,
            reason=str(error),
            unavailable_for_s=unavailable_s,
        )

    def record_answer(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._until.pop(endpoint.name, None)
            self._unavailable_s.pop(endpoint.name, None)


class _RoutedCall(FutureCall):
    """One call. It tries one endpoint after the other until one answers or refuses it."""

    def __init__(
        self, request: GenerationRequest, order: list[Endpoint], health: EndpointHealth
    ) -> None:
        super().__init__()
        self._request, self._order, self._health = request, order, health
        self._errors: list[EngineError] = []
        self._call: Call | None = None
        self._is_cancelled = False
        self._lock = threading.Lock()
        self._try_next()

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            call = self._call
        if call:
            call.cancel()

    def _try_next(self) -> None:
        """Submit the call to the first endpoint that has not failed, or end it after the last."""
        while (error := self._final_error()) is None:
            endpoint = self._order[len(self._errors)]
            try:
                call = endpoint.engine.submit(self._request)
            except EngineError as refusal:
                self._errors.append(refusal)
                continue
            with self._lock:
                self._call, is_cancelled = call, self._is_cancelled
            if is_cancelled:
                call.cancel()
            call.when_done(partial(self._take, call, endpoint))
            return
        self.future.set_exception(error)

    def _final_error(self) -> EngineError | None:
        is_last = self._is_cancelled or len(self._errors) == len(self._order)
        return _error_to_raise(self._errors) if self._errors and is_last else None

    def _take(self, call: Call, endpoint: Endpoint) -> None:
        """An endpoint's call has ended: pass on its answer, or try the next endpoint."""
        try:
            answer = call.result(0)
        except CallRefused as refusal:
            self.future.set_exception(refusal)
        except EngineError as error:
            self._health.record_failure(endpoint, error)
            self._errors.append(error)
            self._try_next()
        except BaseException as error:  # the caller who waits must see every error
            self.future.set_exception(error)
        else:
            if answer.finish_reason != "cancelled":
                self._health.record_answer(endpoint)
            self.future.set_result(answer)


def _error_to_raise(errors: list[EngineError]) -> EngineError:
    """The error to raise for all: preferably an overload, then an error that a retry may fix."""
    return next((error for error in errors if error.is_load), None) or next(
        (error for error in errors if error.retryable), errors[0]
    )
