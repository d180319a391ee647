"""A call to a Triton server: what the caller waits on, and what the engine gathers for it."""

from __future__ import annotations

import asyncio

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.engine.loop_call import LoopCall
from proofloop.engine.triton.answer import TritonAnswer
from proofloop.engine.triton.settings import TritonSettings


class TritonCall(LoopCall):
    """A running call.

    `engine_seconds` counts attempts, not waits, for servers that do not say what the call took of
    them; `failed` names the servers on which an attempt failed.
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
