"""A call to a Triton server: what the caller waits on, and what the engine gathers for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.engine.triton_answer import TritonAnswer
from proofloop.engine.triton_settings import TritonSettings


class TritonCall:
    """A running call. All but its future is touched on the engine's loop only.

    `engine_seconds` counts attempts, not waits, for servers that do not say what the call took of them;
    `failed` names the servers on which an attempt failed.
    """

    def __init__(self, request: GenerationRequest, settings: TritonSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.answer = TritonAnswer(settings.max_answer_bytes)
        self.engine_seconds = 0.0
        self.failed: set[str] = set()
        self.task: asyncio.Task[None] | None = None
        self._settings = settings
        self._loop = loop
        self._future: Future[Generation] = Future()

    def result(self, timeout_s: float | None = None) -> Generation:
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """Ends the stream, which Triton tells the model."""
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

    def _generation(self, *, cancelled: bool) -> Generation:
        return self.answer.generation(
            self.request,
            engine_seconds=self.engine_seconds,
            cancelled=cancelled,
            think_end=self._settings.think_end,
        )
