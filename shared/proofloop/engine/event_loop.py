"""Engines with an event loop of their own, in a thread, and their calls: the caller of a call waits
in another thread.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from proofloop.engine.base import Call, FutureCall, Generation, GenerationRequest
from proofloop.errors import EngineError


class EventLoopCall(FutureCall, ABC):
    """A running call. Only the future may be used outside the engine's event loop."""

    def __init__(self, request: GenerationRequest, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self._loop = loop

    def cancel(self) -> None:
        with suppress(RuntimeError):  # the event loop is closed: the engine has ended the call
            self._loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        if self.task:
            self.task.cancel()

    def settle(self, task: asyncio.Task[None]) -> None:
        """Give the caller the task's result: an answer, a part of a cancelled one, or the error."""
        try:
            if not task.cancelled():
                task.result()
            self.future.set_result(self._generation(cancelled=task.cancelled()))
        except BaseException as error:  # the caller who waits must see every error
            self.future.set_exception(error)

    @abstractmethod
    def _generation(self, *, cancelled: bool) -> Generation:
        """The answer so far. Raises EngineError if it is not an answer."""


C = TypeVar("C", bound=EventLoopCall)


class EventLoopEngine(ABC, Generic[C]):
    """Starts and ends the event loop and its calls. Create an engine after a fork."""

    def __init__(self, name: str) -> None:
        """Start the loop's thread: the last step of an engine's own `__init__`."""
        self._calls: set[C] = set()
        self._submitted: list[C] = []
        self._lifecycle = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Call:
        call = self._new_call(request)
        with self._lifecycle:
            self._check_open()
            self._submitted.append(call)
            if len(self._submitted) == 1:  # the loop is woken once for all calls until it runs
                self._loop.call_soon_threadsafe(self._start_submitted)
        return call

    def prepare(self, model: str) -> None:
        """Load a version before its first call, beside the loaded ones. Raises EngineError."""
        with self._lifecycle:
            self._check_open()
            prepared = asyncio.run_coroutine_threadsafe(self._prepare(model), self._loop)
        prepared.result()

    def close(self) -> None:
        """Cancel the running calls, close the connections, end the thread. Safe to call twice."""
        with self._lifecycle:
            was_closed, self._closed = self._closed, True
        if was_closed:
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed", retryable=True)

    def _start_submitted(self) -> None:
        with self._lifecycle:
            calls, self._submitted = self._submitted, []
        for call in calls:
            call.task = self._loop.create_task(self._run(call))
            self._calls.add(call)
            call.task.add_done_callback(partial(self._end, call))

    def _end(self, call: C, task: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        call.settle(task)

    async def _stop(self) -> None:
        tasks = [call.task for call in self._calls if call.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._disconnect()

    @abstractmethod
    def _new_call(self, request: GenerationRequest) -> C: ...

    @abstractmethod
    async def _prepare(self, model: str) -> None:
        """Load the version, unless it needs no loading."""

    @abstractmethod
    async def _run(self, call: C) -> None:
        """Attempt until the answer is complete."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close the connections; all calls have ended."""
