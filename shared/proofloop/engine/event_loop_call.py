"""A call that runs on the engine's own event loop while its caller waits in a thread."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import suppress

from proofloop.engine.base import Generation, GenerationRequest


class EventLoopCall(ABC):
    """A running call. Only the future may be used outside the engine's event loop."""

    def __init__(self, request: GenerationRequest, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        self._future: Future[Generation] = Future()

    def result(self, timeout_s: float | None = None) -> Generation:
        return self._future.result(timeout_s)

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
            self._future.set_result(self._generation(cancelled=task.cancelled()))
        except BaseException as error:  # the caller who waits must see every error
            self._future.set_exception(error)

    @abstractmethod
    def _generation(self, *, cancelled: bool) -> Generation:
        """The answer so far. Raises EngineError if it is not an answer."""
