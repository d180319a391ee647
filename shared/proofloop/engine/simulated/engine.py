"""The engine without a model: for tests and benchmarks of everything around the model.

An answer depends on the seeds of the settings and the request, never on order or time. Without
latency `submit` answers at once. With latency one thread keeps a heap of the times at which answers
are due.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from proofloop.engine.base import Call, EndedCall, FutureCall, Generation, GenerationRequest
from proofloop.engine.simulated.answers import SimulatedSettings, answer, cancelled, latency_s
from proofloop.errors import EngineError


class TimedCall(FutureCall):
    """A call that waits for a slot, then for its latency. `due_s` is on the monotonic clock, 0
    without a slot.
    """

    def __init__(self, request: GenerationRequest, drop: Callable[[TimedCall], None]) -> None:
        super().__init__()
        self.request = request
        self.due_s = 0.0
        self._drop = drop

    def cancel(self) -> None:
        self._drop(self)


class CallLog:
    """Writes a line with the time when a call begins and when it ends, to this process's own file.

    Tests and benchmarks count the calls in it, also those of a killed process.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{os.getpid()}-{os.urandom(4).hex()}.txt"

    def follow(self, request: GenerationRequest, call: Call) -> None:
        self._note("began", request)
        call.when_done(lambda: self._note("ended", request))

    def _note(self, what: str, request: GenerationRequest) -> None:
        with self._file.open("ab", buffering=0) as file:
            file.write(f"{what} {request.id} {time.time():.3f}\n".encode())


class SimulatedEngine:
    """Invents answers from seeds, in the format of the role at the start of the request's id."""

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._closed = False
        self._timer = Timer(settings) if settings.latency_s else None
        self._call_log = CallLog(Path(settings.call_log)) if settings.call_log else None

    def submit(self, request: GenerationRequest) -> Call:
        if self._closed:
            raise EngineError("the engine is closed", retryable=True)
        call = self._timer.submit(request) if self._timer else self._answer_now(request)
        if self._call_log:
            self._call_log.follow(request, call)
        return call

    def close(self) -> None:
        """Cancel the unanswered calls. Safe to call twice."""
        self._closed = True
        if self._timer:
            self._timer.close()

    def _answer_now(self, request: GenerationRequest) -> Call:
        try:
            return EndedCall(answer(self._settings, request))
        except EngineError as error:
            return EndedCall(error)


class Timer:
    """Runs at most `max_concurrency` calls, by priority and then by arrival, and answers each after
    its latency.
    """

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, TimedCall]] = []  # a heap; cancelled calls are skipped
        self._queued: set[TimedCall] = set()
        self._running: set[TimedCall] = set()
        # cancelled calls stay until they are due and are skipped then
        self._due: list[tuple[float, int, TimedCall]] = []
        self._order = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="simulated-engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> TimedCall:
        call = TimedCall(request, self._drop)
        with self._changed:
            if self._closed:
                raise EngineError("the engine is closed", retryable=True)
            self._queued.add(call)
            heapq.heappush(self._waiting, (request.priority, next(self._order), call))
            self._start_waiting()
        return call

    def close(self) -> None:
        with self._changed:
            self._closed = True
            calls = [*self._queued, *self._running]
            self._changed.notify()
        for call in calls:
            call.cancel()
        self._thread.join()

    def _start_waiting(self) -> None:
        """Give free slots to waiting calls. The caller holds the lock."""
        while (
            self._queued
            and len(self._running) < self._settings.max_concurrency
            and not self._closed
        ):
            _, _, call = heapq.heappop(self._waiting)
            if call not in self._queued:
                continue
            self._queued.remove(call)
            self._running.add(call)
            call.due_s = time.monotonic() + latency_s(self._settings, call.request)
            heapq.heappush(self._due, (call.due_s, next(self._order), call))
            if self._due[0][2] is call:
                self._changed.notify()

    def _take(self, call: TimedCall) -> bool:
        """Claim the right to settle this call: true for the first caller only."""
        with self._changed:
            is_open = call in self._queued or call in self._running
            self._queued.discard(call)
            self._running.discard(call)
            self._start_waiting()
        return is_open

    def _drop(self, call: TimedCall) -> None:
        if self._take(call):
            latency = latency_s(self._settings, call.request)
            left_s = call.due_s - time.monotonic() if call.due_s else latency
            share = min(1.0, max(0.0, 1 - left_s / latency))
            self._settle(call, partial(cancelled, self._settings, call.request, share))

    def _work(self) -> None:
        while call := self._next_due():
            if self._take(call):
                self._settle(call, partial(answer, self._settings, call.request))

    def _next_due(self) -> TimedCall | None:
        """Sleep until the next call is due. None after the engine has closed."""
        with self._changed:
            while not self._closed:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
        return None

    def _settle(self, call: TimedCall, generate: Callable[[], Generation]) -> None:
        try:
            call.future.set_result(generate())
        except BaseException as error:  # the caller who waits must see every error
            call.future.set_exception(error)
