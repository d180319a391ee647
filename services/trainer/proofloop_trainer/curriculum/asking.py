"""Many prompts in, as many answers out: how the curriculum samples, from whatever engine the run names.

What a stranger would get wrong: the seed of an answer comes from its prompt and number, so asking again is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from proofloop.engine.base import Call, ChatMessage, Engine, Generation, GenerationRequest
from proofloop.errors import CallRefused, EngineError, ProofloopError
from proofloop.records import ModelRole, Sampling, derive_seed
from proofloop.walk import Interrupted

IN_FLIGHT = 2048
"""Calls that wait in the engine at once: enough to fill its batches, and little memory."""

POLL_S = 1.0
REFUSED_SHARE = 0.05
"""More refused calls than this among the answers that were asked for together, and the prompts are what is wrong."""

PAUSES_S = (1.0, 5.0, 30.0, 120.0)
"""Before each further attempt at a call that failed for now."""


@dataclass(frozen=True)
class Asker:
    """A model of one role: `version` as the engine knows it. `stopping` ends the wait with Interrupted."""

    engine: Engine
    role: ModelRole
    version: str
    sampling: Sampling
    seed: int
    stopping: threading.Event

    def ask(
        self, prompts: Sequence[str], times: int = 1, temperature: float | None = None, first: int = 0
    ) -> list[list[Generation]]:
        """`times` answers to each prompt, from number `first` on; one that the engine refuses is empty, without tokens.

        Raises ProofloopError when the engine stays away or refuses too much, Interrupted.
        """
        sampling = (
            self.sampling if temperature is None else self.sampling.model_copy(update={"temperature": temperature})
        )
        requests = (
            self._request(prompt, place, number, sampling)
            for place, prompt in enumerate(prompts)
            for number in range(first, first + times)
        )
        answers = list(self._answers(requests))
        return [answers[place * times : (place + 1) * times] for place in range(len(prompts))]

    def _answers(self, requests: Iterable[GenerationRequest]) -> Iterable[Generation]:
        waiting, refused, seen = iter(requests), 0, 0
        while some := list(islice(waiting, IN_FLIGHT)):
            calls = [self.engine.submit(request) for request in some]
            for request, call in zip(some, calls, strict=True):
                answer = self._answer(request, call)
                refused, seen = refused + (answer is None), seen + 1
                yield answer or Generation("", "cancelled", 0, 0, 0.0, self.version)
        if refused > REFUSED_SHARE * seen:
            raise ProofloopError(
                f"the engine refused {refused} of {seen} calls of the {self.role}, more than {REFUSED_SHARE:.0%}"
            )

    def _answer(self, request: GenerationRequest, call: Call) -> Generation | None:
        """The answer, after as many attempts as there are pauses; None for a call that can never be answered."""
        for pause_s in (*PAUSES_S, None):
            try:
                return self._wait(call)
            except CallRefused:
                return None
            except EngineError as error:
                if not error.retryable or pause_s is None:
                    raise ProofloopError(f"the engine cannot answer: {error}; call again to go on") from error
                if self.stopping.wait(pause_s):
                    raise Interrupted("asked to stop") from None
                call = self.engine.submit(request)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, call: Call) -> Generation:
        while True:
            try:
                return call.result(POLL_S)
            except TimeoutError:
                if self.stopping.is_set():
                    raise Interrupted("asked to stop") from None

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
