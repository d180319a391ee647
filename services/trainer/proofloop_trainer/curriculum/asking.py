"""Many prompts in, as many answers out: how the curriculum samples, from whatever engine the run names.

What a stranger would get wrong: the seed of an answer comes from its prompt and number, so asking again is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from proofloop.engine.base import Call, ChatMessage, Engine, Generation, GenerationRequest
from proofloop.errors import EngineError, ProofloopError
from proofloop.records import ModelRole, Sampling, derive_seed
from proofloop.walk import Interrupted

IN_FLIGHT = 2048
"""Calls that wait in the engine at once: enough to fill its batches, and little memory."""

POLL_S = 1.0
FAILED_SHARE = 0.05
"""More failed calls than this among one question's answers, and the engine is what is wrong."""


@dataclass(frozen=True)
class Asker:
    """A model of one role: `version` as the engine knows it. `stopping` ends the wait with Interrupted."""

    engine: Engine
    role: ModelRole
    version: str
    sampling: Sampling
    seed: int
    stopping: threading.Event

    def ask(self, prompts: Sequence[str], times: int = 1, temperature: float | None = None) -> list[list[Generation]]:
        """`times` answers to each prompt. A call that the engine refuses gives an empty answer cut off by length."""
        sampling = (
            self.sampling if temperature is None else self.sampling.model_copy(update={"temperature": temperature})
        )
        requests = (
            self._request(prompt, place, number, sampling)
            for place, prompt in enumerate(prompts)
            for number in range(times)
        )
        answers = list(self._answers(requests))
        return [answers[place * times : (place + 1) * times] for place in range(len(prompts))]

    def _answers(self, requests: Iterable[GenerationRequest]) -> Iterable[Generation]:
        waiting, failed, seen = iter(requests), 0, 0
        while calls := [self.engine.submit(request) for request in islice(waiting, IN_FLIGHT)]:
            for call in calls:
                answer = self._wait(call)
                failed, seen = failed + (answer is None), seen + 1
                yield answer or Generation("", "length", 0, 0, 0.0, self.version)
        if failed > FAILED_SHARE * seen:
            raise ProofloopError(f"{failed} of {seen} calls of the {self.role} failed, more than {FAILED_SHARE:.0%}")

    def _wait(self, call: Call) -> Generation | None:
        while True:
            try:
                return call.result(POLL_S)
            except TimeoutError:
                if self.stopping.is_set():
                    raise Interrupted("asked to stop") from None
            except EngineError as error:
                if not error.retryable:
                    return None
                raise ProofloopError(f"the engine is away: {error}; call again to go on") from error

    def _request(self, prompt: str, place: int, number: int, sampling: Sampling) -> GenerationRequest:
        seed = derive_seed(self.seed, self.role, prompt, place, number)
        return GenerationRequest(
            id=f"{self.role}:{place}:{number}:{seed:x}",
            model=self.version,
            messages=(ChatMessage("user", prompt),),
            sampling=sampling,
            seed=seed,
            affinity=str(place),
        )
