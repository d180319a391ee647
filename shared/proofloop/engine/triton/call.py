"""A call to a Triton server, with its answer so far."""

from __future__ import annotations

import asyncio

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.engine.event_loop import EventLoopCall
from proofloop.engine.triton.answer import TritonAnswer
from proofloop.engine.triton.settings import TritonSettings


class TritonCall(EventLoopCall):
    """A running call.

    `engine_seconds`: the time of all attempts, without waits, for servers that do not report their
    time. `failed`: the servers on which an attempt failed.
    """

    def __init__(
        self, request: GenerationRequest, settings: TritonSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(request, loop)
        self.answer = TritonAnswer(settings.max_answer_bytes)
        self.engine_seconds = 0.0
        self.failed: set[str] = set()
        self._settings = settings

    def _generation(self, *, cancelled: bool) -> Generation:
        return self.answer.generation(
            self.request,
            engine_seconds=self.engine_seconds,
            cancelled=cancelled,
            think_end=self._settings.think_end,
        )
