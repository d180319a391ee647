"""A call to an OpenAI-compatible server, with its answer so far and the count of its attempts."""

from __future__ import annotations

import asyncio
import math

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.engine.event_loop import EventLoopCall
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.engine.openai.stream import StreamedAnswer, joined
from proofloop.errors import EngineError


class OpenAICall(EventLoopCall):
    """A running call.

    `left_out`: fields that the server seems not to know. `engine_seconds`: the time of all
      attempts, without waits.
    `refusals`: attempts that found the server busy or unavailable. `failures`: other failed
      attempts.
    `served_name`: the server's name of the model.
    `was_alone`: no other call was in flight when the last attempt began or ended.
    `refused_alone_at`: the start of a series of attempts that were alone and refused as busy.
    """

    def __init__(
        self,
        request: GenerationRequest,
        settings: OpenAISettings,
        loop: asyncio.AbstractEventLoop,
        *,
        is_probe: bool = False,
    ) -> None:
        super().__init__(request, loop)
        self.answer = StreamedAnswer(settings.max_answer_bytes)
        self.engine_seconds = 0.0
        self._begun_seconds = 0.0
        self._failed_prompt_tokens = self._failed_completion_tokens = 0
        self.left_out: set[str] = set()
        self.refusals = 0
        self.failures = 0
        self.was_alone = False
        self.refused_alone_at = math.inf
        self.is_probe = is_probe
        self.served_name = settings.served_name(request.model)
        self._settings = settings

    def begin_attempt(self) -> StreamedAnswer:
        if usage := self.answer.usage:
            self._failed_prompt_tokens += usage.prompt_tokens
            self._failed_completion_tokens += usage.completion_tokens
        self.answer = StreamedAnswer(self._settings.max_answer_bytes)
        return self.answer

    def end_attempt(self, seconds: float) -> None:
        self.engine_seconds += seconds
        self._begun_seconds += seconds if self.answer.began else 0.0

    def keep_partial(self, error: EngineError) -> None:
        """Add the partial answer of the last attempt and the cost of all attempts to the error."""
        error.partial = joined(self.answer.text)
        error.partial_reasoning = joined(self.answer.reasoning)
        usage = self.answer.usage
        error.prompt_tokens = self._failed_prompt_tokens + (usage.prompt_tokens if usage else 0)
        error.completion_tokens = self._failed_completion_tokens + (
            usage.completion_tokens if usage else 0
        )
        error.engine_seconds = self._begun_seconds

    def _generation(self, *, cancelled: bool) -> Generation:
        try:
            return self.answer.generation(
                self.request,
                engine_seconds=self.engine_seconds,
                cancelled=cancelled,
                think_end=self._settings.think_end,
                keep_tokens=self._settings.trusts_logprobs(self.request),
                served_by=f"{self.served_name} at {self._settings.where}",
            )
        except EngineError as error:
            self.keep_partial(error)
            raise
