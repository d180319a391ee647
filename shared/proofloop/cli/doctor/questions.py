"""What the models really answer: a question a role, with the run's own sampling, read by the run's
own parser.

The generator gets the run's first problem, the verifier a sample proof of it, the meta-verifier a
sample critique.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import (
    LARGEST_SEED,
    Call,
    ChatMessage,
    Engine,
    Generation,
    GenerationRequest,
)
from proofloop.engine.endpoints import members
from proofloop.errors import EngineError
from proofloop.method.domains import load_domain
from proofloop.method.domains.base import PLAIN_SAMPLE
from proofloop.method.prompts import Prompt, PromptPack, load_pack
from proofloop.schema.records import MODEL_ROLES, ModelRole, Verdict
from proofloop.worker.engine_pool import Engines

CANCELLED_WITHIN_S = 5.0
"""How long a call that was cancelled may take to say what had come."""


@dataclass(frozen=True)
class TrialAnswer:
    """What came of a role's question at one server.

    `verdict` is None where no whole answer came: `error` says why, or the time was over.
    `unreadable` counts answers that cannot be read; the first one of them is asked for once more,
    because models sometimes miss the format.
    """

    role: ModelRole
    generation: Generation | None = None
    verdict: Verdict | None = None
    error: EngineError | None = None
    seconds: float = 0.0
    unreadable: int = 0

    @property
    def is_readable(self) -> bool:
        return self.verdict is not None and self.verdict.outcome == "valid"


def ask_roles(engines: Engines, spec: RunSpec, question: str, wait_s: float) -> list[TrialAnswer]:
    """One answer a role and endpoint, all asked at once and waited for `wait_s` seconds in all.
    Raises ConfigError.
    """
    pack = load_pack(spec.prompts, spec.base)
    asked = [
        _Trial(endpoint, spec, pack, role, question)
        for role in MODEL_ROLES
        for endpoint in members(engines.of(spec, role))
    ]
    until = time.monotonic() + wait_s
    answers = [trial.answer(until) for trial in asked]
    for trial, answer in zip(asked, answers, strict=True):
        if answer.verdict is not None and not answer.is_readable:
            trial.ask_again()
    return [trial.better(answer, until) for trial, answer in zip(asked, answers, strict=True)]


class _Trial:
    """A role's question, and the call that was made of it last."""

    def __init__(
        self, engine: Engine, spec: RunSpec, pack: PromptPack, role: ModelRole, question: str
    ) -> None:
        self._engine, self._spec, self._pack, self._role = engine, spec, pack, role
        self._prompt = _prompt(spec, pack, role, question)
        self._seed = LARGEST_SEED
        self._submit()

    def ask_again(self) -> None:
        self._seed -= 1
        self._submit()

    def answer(self, until: float) -> TrialAnswer:
        generation, error, verdict = self._result(until)
        if generation is not None and generation.finish_reason != "cancelled":
            verdict = _read(self._spec, self._pack, self._role, generation)
        unreadable = int(verdict is not None and verdict.outcome != "valid")
        seconds = time.monotonic() - self._began
        return TrialAnswer(self._role, generation, verdict, error, seconds, unreadable)

    def better(self, first: TrialAnswer, until: float) -> TrialAnswer:
        """The second answer where it can be read, else the first."""
        if not first.unreadable:
            return first
        second = self.answer(until)
        return replace(
            second if second.is_readable else first, unreadable=first.unreadable + second.unreadable
        )

    def _result(self, until: float) -> tuple[Generation | None, EngineError | None, Verdict | None]:
        if self._call is None:
            return None, self._error, None
        try:
            return self._call.result(max(0.0, until - time.monotonic())), None, None
        except EngineError as error:
            return None, error, None
        except TimeoutError:
            self._call.cancel()
        try:
            return self._call.result(CANCELLED_WITHIN_S), None, None
        except (EngineError, TimeoutError):
            return None, None, None

    def _submit(self) -> None:
        self._began = time.monotonic()
        self._call: Call | None = None
        self._error: EngineError | None = None
        request = GenerationRequest(
            id=f"{self._role}:trial:{uuid.uuid4().hex[:8]}",
            model=self._spec.model_of(self._role),
            messages=(ChatMessage("user", self._prompt.text),),
            sampling=self._spec.sampling_of(self._role),
            seed=self._seed,
            schema=self._prompt.schema,
        )
        try:
            self._call = self._engine.submit(request)
        except EngineError as error:
            self._error = error


def _prompt(spec: RunSpec, pack: PromptPack, role: ModelRole, question: str) -> Prompt:
    sample = (
        load_domain(spec.problems.domain).sample(question) if spec.problems.domain else PLAIN_SAMPLE
    )
    if role == "generator":
        return pack.prove(question)
    if role == "verifier":
        return pack.verify(question, sample.proof)
    return pack.judge(question, sample.proof, pack.evaluation(sample.analysis, sample.score))


def _read(spec: RunSpec, pack: PromptPack, role: ModelRole, answer: Generation) -> Verdict:
    reader = pack.reader(spec.how_to_read)
    if role == "generator":
        return reader.proof(answer.text, answer.finish_reason).verdict
    read = reader.evaluation if role == "verifier" else reader.meta_critique
    return read(answer.text, answer.finish_reason).verdict
