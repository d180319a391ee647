"""Many prompts in, as many answers out: how the curriculum samples, from whatever engine the run
names.

What a stranger would get wrong: the seed of an answer comes from its prompt and number, so asking
again is the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from proofloop.engine.base import Call, ChatMessage, Engine, Generation, GenerationRequest
from proofloop.errors import CallRefused, EngineError, HintedError, ProofloopError, StoreError
from proofloop.pipeline.driver import Interrupted
from proofloop.schema.records import ModelRole, Sampling, derive_seed
from proofloop_trainer.curriculum.kept import Kept, keepable

IN_FLIGHT = 2048
"""Calls that wait in the engine at once: enough to fill its batches, and little memory."""

POLL_S = 1.0
REFUSED_SHARE = 0.05
"""More refused calls than this among the answers that were asked for together, and the prompts are
what is wrong.
"""

PAUSES_S = (1.0, 5.0, 30.0, 120.0)
"""Before each further attempt at a call that failed for now."""


class Count:
    """How far something is, in words: `3/20, about 12 s left`. The time left goes by the pace since
    it was made.

    It is not said before a twentieth is done, or 32: one of many that run at once says nothing of
    the pace.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._total, self._first, self._began = total, done, time.monotonic()

    def at(self, done: int) -> str:
        taken, left = done - self._first, self._total - done
        if not left or taken < min(32, max(1, (self._total - self._first) / 20)):
            return f"{done}/{self._total}"
        seconds = (time.monotonic() - self._began) / taken * left
        return f"{done}/{self._total}, about {seconds:.0f} s left"


@dataclass(frozen=True)
class Asker:
    """A model of one role: `version` as the engine knows it. `stopping` ends the wait with
    Interrupted.

    Long asking leaves its answers in `kept`, and asks for none that lies there.
    """

    engine: Engine
    role: ModelRole
    version: str
    sampling: Sampling
    seed: int
    stopping: threading.Event
    kept: Kept

    def ask(
        self,
        prompts: Sequence[str],
        times: int = 1,
        temperature: float | None = None,
        first: int = 0,
    ) -> list[list[Generation]]:
        """`times` answers to each prompt, from number `first` on; one that the engine refuses is
        empty, without tokens.

        Raises ProofloopError when the engine stays away or refuses too much, Interrupted.
        """
        sampling = (
            self.sampling
            if temperature is None
            else self.sampling.model_copy(update={"temperature": temperature})
        )
        requests = [
            self._request(prompt, place, number, sampling)
            for place, prompt in enumerate(prompts)
            for number in range(first, first + times)
        ]
        answers = self._answers(requests)
        return [answers[place * times : (place + 1) * times] for place in range(len(prompts))]

    def _answers(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """One to each, in order."""
        asked = Asked(requests, self.role, self.kept)
        try:
            self._collect(asked)
        except BaseException:
            # A stop, an engine that stays away or refuses too much: what came was paid for.
            with suppress(StoreError):  # what ended it is what is to be read
                asked.keep()
            raise
        nothing = Generation("", "cancelled", 0, 0, 0.0, self.version)
        return [asked.answers[request.id] or nothing for request in requests]

    def _collect(self, asked: Asked) -> None:
        waiting = iter(
            [request for request in asked.requests.values() if request.id not in asked.answers]
        )
        while some := list(islice(waiting, IN_FLIGHT)):
            asked.running = {request.id: self.engine.submit(request) for request in some}
            for request in some:
                if request.id not in asked.answers:
                    asked.add(request, self._answer(request, asked))
                asked.look()
                if self.stopping.is_set():
                    raise Interrupted("asked to stop")
        refused, seen = sum(answer is None for answer in asked.answers.values()), len(asked.answers)
        if refused > REFUSED_SHARE * seen:
            raise HintedError(
                f"the engine refused {refused} of {seen} calls of the {self.role}, more than"
                f" {REFUSED_SHARE:.0%}",
                "the prompts may be too long for the model; see the engine's log, then run the"
                " command again",
            )

    def _answer(self, request: GenerationRequest, asked: Asked) -> Generation | None:
        """The answer, after as many attempts as there are pauses; None for a call that can never be
        answered.
        """
        for pause_s in (*PAUSES_S, None):
            try:
                return self._wait(request, asked)
            except CallRefused:
                return None
            except EngineError as error:
                if not error.retryable or pause_s is None:
                    raise ProofloopError(
                        f"the engine cannot answer: {error}; run the command again to continue"
                    ) from error
                if self.stopping.wait(pause_s):
                    raise Interrupted("asked to stop") from None
                asked.running[request.id] = self.engine.submit(request)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, request: GenerationRequest, asked: Asked) -> Generation:
        while True:
            try:
                return asked.running[request.id].result(POLL_S)
            except TimeoutError:
                if self.stopping.is_set():
                    raise Interrupted("asked to stop") from None
                asked.look()

    def _request(
        self, prompt: str, place: int, number: int, sampling: Sampling
    ) -> GenerationRequest:
        seed = derive_seed(self.seed, self.role, prompt, place, number)
        return GenerationRequest(
            id=f"{self.role}:{place}:{number}:{seed:x}",
            model=self.version,
            messages=(ChatMessage("user", prompt),),
            sampling=sampling,
            seed=seed,
            affinity=str(place),
        )


class Asked:
    """What is asked for together, and what came of it so far; None for what the engine refused.

    `running`: the calls that the engine has, by the id of their request.
    """

    def __init__(self, requests: Sequence[GenerationRequest], role: ModelRole, kept: Kept) -> None:
        self.requests = {request.id: request for request in requests}
        self.running: dict[str, Call] = {}
        self.answers: dict[str, Generation | None] = {**kept.begin(requests)}
        self._kept, self._what = kept, f"{role.replace('_', '-')} answers"
        self._count = Count(len(requests), len(self.answers))
        if self.answers:
            kept.say(f"{self._what}: {self._count.at(len(self.answers))} are stored already")

    def add(self, request: GenerationRequest, answer: Generation | None) -> None:
        """What the engine refused or broke off is asked for again by the next process."""
        self.answers[request.id] = answer = answer and keepable(answer)
        if answer and answer.finish_reason != "cancelled":
            self._kept.add(request, answer)

    def look(self) -> None:
        """Now and then keep what came, and say how far it is."""
        if not self._kept.is_due:
            return
        try:
            self.keep()
            self._kept.say(f"{self._what}: {self._count.at(len(self.answers))}")
        except StoreError as error:  # a store that is unavailable for a moment ends no rollout
            self._kept.say(
                f"{self._what}: {self._count.at(len(self.answers))}, not stored yet: {error}"
            )

    def keep(self) -> None:
        """Store what came, in turn or not."""
        for name, call in self.running.items():
            if name not in self.answers:
                with suppress(TimeoutError, EngineError):  # it runs on; in its turn an error is met
                    self.add(self.requests[name], call.result(0))
        self._kept.write()
