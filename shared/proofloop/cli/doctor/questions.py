"""Trial calls of `proofloop doctor`: one prompt for each role, sampled and read as in the run.

The generator gets the run's first problem, the verifier a sample proof, the meta-verifier a sample
critique.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
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
from proofloop.engine.endpoints import endpoint_engines
from proofloop.errors import EngineError
from proofloop.method.domains import load_domain
from proofloop.method.domains.base import PLAIN_SAMPLE
from proofloop.method.prompts import Prompt, PromptPack, load_pack
from proofloop.schema.records import ModelRole, Verdict
from proofloop.worker.engine_pool import Engines

CANCELLED_WITHIN_S = 5.0
"""The time for a cancelled call to return its partial answer."""


@dataclass(frozen=True)
class TrialAnswer:
    """The answer of one role at one endpoint.

    `verdict` is None without a complete answer: because of `error`, or else of the timeout.
    `unreadable` counts unreadable answers. An unreadable first answer is retried once, because
    models sometimes miss the format.
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


def ask_roles(
    engines: Engines,
    spec: RunSpec,
    question: str,
    wait_s: float,
    on_answer: Callable[[TrialAnswer], None] = lambda answer: None,
) -> list[TrialAnswer]:
    """One answer for each role and endpoint. All calls run at the same time and share the timeout
    `wait_s`. `on_answer` is called with each first answer. Raises ConfigError.
    """
    pack = load_pack(spec.prompts, spec.base)
    trials = [
        _Trial(endpoint, spec, pack, role, question)
        for role in spec.asked_roles
        for endpoint in endpoint_engines(engines.of(spec, role))
    ]
    deadline = time.monotonic() + wait_s
    answers = []
    for trial in trials:
        answers.append(trial.answer(deadline))
        on_answer(answers[-1])
    for trial, answer in zip(trials, answers, strict=True):
        if answer.verdict is not None and not answer.is_readable:
            trial.retry()
    return [trial.better(answer, deadline) for trial, answer in zip(trials, answers, strict=True)]


class _Trial:
    """The prompt of one role, and its latest call."""

    def __init__(
        self, engine: Engine, spec: RunSpec, pack: PromptPack, role: ModelRole, question: str
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._pack = pack
        self._role = role
        self._prompt = _prompt(spec, pack, role, question)
        self._seed = LARGEST_SEED
        self._submit()

    def retry(self) -> None:
        self._seed -= 1
        self._submit()

    def answer(self, deadline: float) -> TrialAnswer:
        generation, error = self._result(deadline)
        verdict = None
        if generation is not None and generation.finish_reason != "cancelled":
            verdict = _read(self._spec, self._pack, self._role, generation)
        unreadable = int(verdict is not None and verdict.outcome != "valid")
        seconds = time.monotonic() - self._began
        return TrialAnswer(self._role, generation, verdict, error, seconds, unreadable)

    def better(self, first: TrialAnswer, deadline: float) -> TrialAnswer:
        """The second answer if it is readable, else the first."""
        if not first.unreadable:
            return first
        second = self.answer(deadline)
        return replace(
            second if second.is_readable else first, unreadable=first.unreadable + second.unreadable
        )

    def _result(self, deadline: float) -> tuple[Generation | None, EngineError | None]:
        """The answer or the error; at the deadline the partial answer, or neither."""
        if self._call is None:
            return None, self._error
        try:
            return self._call.result(max(0.0, deadline - time.monotonic())), None
        except EngineError as error:
            return None, error
        except TimeoutError:
            self._call.cancel()
        try:
            return self._call.result(CANCELLED_WITHIN_S), None
        except (EngineError, TimeoutError):
            return None, None

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
    domain = spec.problems.checked_by
    sample = load_domain(domain).sample(question) if domain else PLAIN_SAMPLE
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
