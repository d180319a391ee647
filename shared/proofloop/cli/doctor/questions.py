"""Trial calls of `proofloop doctor`: one prompt for each role, sampled and read as in the run.

The generator gets the run's first problem, the verifier a sample proof, the meta-verifier a sample
critique.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

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
    `unreadable` counts the unreadable answers of the trial. An unreadable first answer is retried
    once, because models sometimes miss the format.
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

    @property
    def is_unreadable(self) -> bool:
        return self.verdict is not None and self.verdict.outcome != "valid"


def ask_roles(
    engines: Engines,
    spec: RunSpec,
    question: str,
    wait_s: float,
    on_answer: Callable[[TrialAnswer], None] = lambda answer: None,
) -> list[TrialAnswer]:
    """One answer for each role and endpoint. All calls run at the same time and share the timeout
    `wait_s`. `on_answer` is called with each first answer as it comes. Raises ConfigError.
    """
    pack = load_pack(spec.prompts, spec.base)
    ended: SimpleQueue[_Trial] = SimpleQueue()
    trials = [
        _Trial(endpoint, spec, pack, role, question, ended)
        for role in spec.asked_roles
        for endpoint in endpoint_engines(engines.of(spec, role))
    ]
    deadline = time.monotonic() + wait_s
    for trial in trials:
        trial.submit()
    while any(trial.runs for trial in trials):
        try:
            trial = ended.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        trial.end()
        if len(trial.answers) == 1:
            on_answer(trial.answers[0])
            trial.retry_unreadable()
    late = [trial for trial in trials if trial.runs]
    for trial in late:
        trial.cancel()
    for trial in late:
        trial.end()
        if len(trial.answers) == 1:
            on_answer(trial.answers[0])
    return [trial.best() for trial in trials]


class _Trial:
    """The prompt of one role, its running call, and its answers."""

    def __init__(
        self,
        engine: Engine,
        spec: RunSpec,
        pack: PromptPack,
        role: ModelRole,
        question: str,
        ended: SimpleQueue[_Trial],
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._pack = pack
        self._role = role
        self._prompt = _prompt(spec, pack, role, question)
        self._ended = ended
        self.answers: list[TrialAnswer] = []
        self.runs = False
        self._cancelled = False

    def submit(self) -> None:
        """Start a call. The trial is in the queue once the call has ended."""
        self._began = time.monotonic()
        self._call: Call | None = None
        self._error: EngineError | None = None
        self.runs = True
        request = GenerationRequest(
            id=f"{self._role}:trial:{uuid.uuid4().hex[:8]}",
            model=self._spec.model_of(self._role),
            messages=(ChatMessage("user", self._prompt.text),),
            sampling=self._spec.sampling_of(self._role),
            seed=LARGEST_SEED - len(self.answers),
            schema=self._prompt.schema,
        )
        try:
            self._call = self._engine.submit(request)
        except EngineError as error:
            self._error = error
            self._ended.put(self)
        else:
            self._call.when_done(lambda: self._ended.put(self))

    def cancel(self) -> None:
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    def end(self) -> None:
        """Read the answer of the ended or cancelled call."""
        seconds = time.monotonic() - self._began
        generation, error = self._result()
        verdict = None
        if generation is not None and generation.finish_reason != "cancelled":
            reader = self._pack.reader(self._spec.how_to_read)
            verdict = reader.verdict(self._role, generation.text, generation.finish_reason)
        self.answers.append(TrialAnswer(self._role, generation, verdict, error, seconds))
        self.runs = False

    def retry_unreadable(self) -> None:
        if self.answers[-1].is_unreadable:
            self.submit()

    def best(self) -> TrialAnswer:
        """The second answer if it is readable or failed, else the first."""
        unreadable = sum(answer.is_unreadable for answer in self.answers)
        first, last = self.answers[0], self.answers[-1]
        chosen = last if last.is_readable or last.error is not None else first
        return replace(chosen, unreadable=unreadable)

    def _result(self) -> tuple[Generation | None, EngineError | None]:
        """The answer or the error; of a cancelled call the partial answer, or neither."""
        if self._call is None:
            return None, self._error
        try:
            return self._call.result(CANCELLED_WITHIN_S), None
        except EngineError as error:
            return None, None if self._cancelled else error
        except TimeoutError:
            return None, None


def _prompt(spec: RunSpec, pack: PromptPack, role: ModelRole, question: str) -> Prompt:
    domain = spec.problems.checked_by
    sample = load_domain(domain).sample(question) if domain else PLAIN_SAMPLE
    analysis = pack.evaluation(sample.analysis, sample.score)
    return pack.ask(role, question, sample.proof, analysis)
