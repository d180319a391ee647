"""A call that an engine answers on an event loop of its own, while its caller waits in a thread."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import suppress

from proofloop.engine.base import Generation, GenerationRequest


class LoopCall(ABC):
    """A running call. All but its future is touched on the engine's loop only."""

    def __init__(self, request: GenerationRequest, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        self._future: Future[Generation] = Future()

    def result(self, timeout_s: float | None = None) -> Generation:
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the engine has ended this call already
            self._loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        if self.task:
            self.task.cancel()

    def settle(self, task: asyncio.Task[None]) -> None:
        """Hand over how the task ended: an answer, what came of a cancelled one, or the error."""
        try:
            if not task.cancelled():
                task.result()
            self._future.set_result(self._generation(cancelled=task.cancelled()))
        except BaseException as error:  # whatever it is, it belongs to the caller who waits
            self._future.set_exception(error)

    @abstractmethod
    def _generation(self, *, cancelled: bool) -> Generation:
        """What came of the call. Raises EngineError where that is no answer."""
