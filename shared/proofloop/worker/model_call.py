"""How a role asks its model: one rendered prompt in, one answer with its provenance out.

An answer that nobody needs any more is cancelled.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import Call, ChatMessage, Generation, GenerationRequest
from proofloop.errors import AccessRefused, CallRefused, EngineError, Reject, Retry, StoreError
from proofloop.method.prompts import Prompt
from proofloop.method.prompts.reading.parsing import EMPTY
from proofloop.schema import keys
from proofloop.schema.ids import AnswerName, CallId
from proofloop.schema.records import (
    ModelRole,
    Provenance,
    RawAnswer,
    Tokens,
    Verdict,
    derive_seed,
    digest,
)
from proofloop.worker.engine_trial import check_taken, is_answered
from proofloop.worker.failing_calls import LONGEST_BUSY_S, MOST_ROUNDS
from proofloop.worker.runtime import MODEL, Tools

log = structlog.get_logger()

POLL_S = 1.0
"""How often a waiting caller looks whether it should stop."""

RARELY = 16
"""A long call looks in the store whether it is still needed at every 16th poll: thousands of them
wait at once.
"""

ENGINE_AWAY_S, LONGEST_AWAY_S = 2.0, 300.0
"""How long a message waits before an engine that failed is asked again: as long as the engine says,
up to the second.

It doubles with each round in which others are answered. On a broker the others that wait may have
to wait behind it.
"""


PRIORITY: Mapping[ModelRole, int] = {"meta_verifier": 0, "generator": 2, "verifier": 3}
"""Where the calls of several roles wait for one engine, the lowest goes first: a judgement may make
critiques unnecessary.
"""

LATE_PRIORITY = 1
"""Of judgements that decide a label less often: of critiques with score 0.5, where a 0 decides."""

MAX_REASON_CHARS = 500
ALL_REASONING = f"{EMPTY}: all of it is reasoning"


class Cancelled(Exception):
    """Nobody needs the answer any more."""


@dataclass(frozen=True)
class Question:
    """One question to a model. Proof and `name` (unique within the proof) make its seed.

    `shown_as`: the name of a generator's attempt while it is not accepted. `priority`: as in
    `GenerationRequest`; that of the role if it is None.
    """

    run_id: str
    role: ModelRole
    version: str
    prompt: Prompt
    proof_id: str
    name: AnswerName
    shown_as: AnswerName | None = None
    priority: int | None = None

    @property
    def key(self) -> str:
        """The same for every message that needs this answer; the version in service may have
        changed meanwhile.
        """
        return str(CallId(self.run_id, self.role, self.proof_id, str(self.name)))

    @property
    def answer_name(self) -> str:
        """The name by which `proofloop proof` prints the answer, if it is not accepted."""
        return (self.shown_as or self.name).of(self.proof_id)


@dataclass(frozen=True)
class Answer:
    """What came back. `failure` is set when the engine has no answer to this call; the text is then
    empty.

    `raw` is all that the model wrote. `is_counted`: another message got this answer too and counts
    its verdict.
    """

    text: str
    finish_reason: str
    provenance: Provenance
    raw: RawAnswer
    failure: Verdict | None = None
    is_counted: bool = field(default=False, compare=False)

    def verdict(self, parsed: Verdict, question: Question, tools: Tools) -> Verdict:
        """The parser's verdict, unless the engine failed; counted."""
        verdict, role = self.failure or self._with_reasoning(parsed), question.role
        if not self.is_counted:
            tools.metrics.count_verdict(role, self.provenance.model_version, verdict.outcome)
            tools.early_warnings.add(
                tools.spec(question.run_id), role, question.answer_name, verdict
            )
        return verdict

    def _with_reasoning(self, verdict: Verdict) -> Verdict:
        """Of an empty answer the reason says that there is reasoning: the server may have put all
        into it.
        """
        if verdict.reason != EMPTY or not self.raw.reasoning:
            return verdict
        reason = f"{ALL_REASONING}, {len(self.raw.reasoning)} characters"
        return verdict.model_copy(update={"reason": reason, "cause": ALL_REASONING})


@dataclass(frozen=True)
class Refused:
    """A call that the engine did not even take: it fails as any other."""

    error: EngineError

    def result(self, timeout_s: float | None = None) -> Generation:
        raise self.error

    def cancel(self) -> None:
        """There is nothing to cancel."""


def _submit(tools: Tools, spec: RunSpec, role: ModelRole, request: GenerationRequest) -> Call:
    try:
        return tools.engine(spec, role).submit(request)
    except EngineError as error:
        return Refused(error)


def storable(text: str) -> str:
    """The text without lone surrogates, which a JSON answer may hold and no record can."""
    return text.encode("utf-8", "replace").decode()


class Asked:
    """A question that is being answered. Messages that ask the same question share one call and its
    answer.
    """

    def __init__(self, question: Question, tools: Tools) -> None:
        structlog.contextvars.bind_contextvars(**{MODEL: question.version})
        spec = tools.spec(question.run_id)
        self._question, self._tools, self._spec = question, tools, spec
        self._version = (question.run_id, question.role, question.version)
        self._sampling = spec.sampling_of(question.role)
        self._seed = derive_seed(spec.seed, question.run_id, question.proof_id, question.name)
        self._call = tools.calls.join(
            question.key, lambda: _submit(tools, spec, question.role, self._request())
        )

    def answer(self, unneeded: Callable[[], bool] = lambda: False) -> Answer:
        """Wait for the answer. Raises what `answers_of` raises."""
        [(_, answer)] = answers_of([self], unneeded)
        return answer

    def poll(self, timeout_s: float) -> Answer | None:
        """The answer; None when it has not come by then.

        Raises Retry when the call must be made again later, Reject when the engine has no answer
        for the run.
        """
        try:
            generation = self._call.result(timeout_s)
        except TimeoutError:
            return None
        except EngineError as failure:
            return self._once(partial(self._failed, failure))
        return self._once(partial(self._answer, generation))

    def _once(self, make: Callable[[], Answer]) -> Answer:
        """Count the answer and keep its tokens once, however many messages share it."""
        answer = self._call.once(make)
        return answer if self._call.is_first else replace(answer, is_counted=True)

    def _failed(self, failure: EngineError) -> Answer:
        self._tools.usage.add_failed(self._question.run_id, self._question.role, failure)
        error, rounds = self._weighed(failure), 1
        if error.is_load:
            error = self._unless_too_long_busy(error)
        elif error.retryable:
            rounds = self._rounds_failed()
            if rounds >= MOST_ROUNDS:
                error = self._refused(error, f"in {rounds} rounds")
        self._count_failure(error)
        if not isinstance(error, CallRefused):
            self._give_up(error, rounds)
        provenance = self._provenance(
            failure.prompt_tokens,
            failure.completion_tokens,
            failure.engine_seconds,
            self._question.version,
        )
        raw = RawAnswer.of(storable(failure.partial), storable(failure.partial_reasoning))
        reason = storable(str(error)[:MAX_REASON_CHARS])
        return Answer(
            "",
            "failed",
            provenance,
            raw,
            Verdict(outcome="engine_failed", reason=reason, cause=error.cause),
        )

    def _rounds_failed(self) -> int:
        question, tools = self._question, self._tools

        def try_another() -> bool:
            engine, pack = tools.engine(self._spec, question.role), tools.pack(question.run_id)
            return is_answered(
                engine, self._spec, pack, question.role, question.version, lambda: tools.must_cancel
            )

        return tools.failing.failed(question.run_id, question.role, question.key, try_another)

    def _unless_too_long_busy(self, error: EngineError) -> EngineError:
        question = self._question
        busy_s = self._tools.failing.refused_as_busy(question.run_id, question.role, question.key)
        return (
            self._refused(error, f"for {busy_s / 3600:.1f} h")
            if busy_s >= LONGEST_BUSY_S
            else error
        )

    def _refused(self, error: EngineError, failed: str) -> CallRefused:
        """The error of a call that failed too often, or for too long, while others were
        answered.
        """
        self._tools.failing.given_up(self._question.key)
        others = f"{failed}, while other calls of the {self._question.role} were answered"
        log.warning(
            "engine_call_given_up", call=self._question.key, problem=error.problem, failed=failed
        )
        return CallRefused(f"{error.problem}; {others}", hint=error.hint, cause=error.cause)

    def cancel(self) -> None:
        self._call.cancel()

    def _weighed(self, error: EngineError) -> EngineError:
        """A refusal while the version has taken no call yet may be one of every call, and so no
        matter of this one.
        """
        question, tools = self._question, self._tools
        if isinstance(error, CallRefused) and self._version not in tools.taken:
            try:
                pack = tools.pack(question.run_id)
                engine = tools.engine(self._spec, question.role)
                check_taken(engine, self._spec, pack, question.role, question.version)
            except CallRefused as refusal:
                return EngineError(f"it refuses every call: {refusal}", retryable=False)
            except EngineError as away:
                return away
            tools.taken.add(self._version)
        return error

    def _count_failure(self, error: EngineError) -> None:
        reason = (
            "refused"
            if isinstance(error, CallRefused)
            else "away"
            if error.retryable
            else "unusable"
        )
        self._tools.metrics.engine_failures.labels(self._question.role, reason).inc()

    def _give_up(self, error: EngineError, rounds: int) -> NoReturn:
        """Try again later; where that cannot help (no such model, no access) fail no proof.

        A process of one run then stops, and one without access that no engine ever answered: others
        may handle the message. A process that serves other runs too gives up the message.
        """
        if not error.retryable:
            problem = f"the engine cannot answer the {self._question.role}: {error}"
            is_own_fault = isinstance(error, AccessRefused) and not self._tools.taken
            if not self._tools.has_one_run and not is_own_fault:
                raise Reject(problem) from error
            self._tools.stop(problem)
        self._warn_of_silence(error)
        after_s = min(max(ENGINE_AWAY_S * 2 ** (rounds - 1), error.after_s or 0.0), LONGEST_AWAY_S)
        raise Retry(f"engine: {error}", after_s=after_s) from error

    def _warn_of_silence(self, error: EngineError) -> None:
        """Warn once per outage and half minute, not once per message."""
        role = self._question.role
        if since := self._tools.failing.silence(self._question.run_id, role):
            kind = self._spec.engine.of(role).kind
            log.warning("engine_away", engine=kind, role=role, since=since, reason=str(error))

    def _request(self) -> GenerationRequest:
        question = self._question
        return GenerationRequest(
            id=f"{question.role}:{question.proof_id}:{question.name}:{uuid.uuid4().hex[:8]}",
            model=question.version,
            messages=(ChatMessage("user", question.prompt.text),),
            sampling=self._sampling,
            seed=self._seed,
            affinity=question.proof_id,
            schema=question.prompt.schema,
            priority=PRIORITY[question.role] if question.priority is None else question.priority,
        )

    def _answer(self, generation: Generation) -> Answer:
        role = self._question.role
        if generation.finish_reason == "cancelled":
            raise Retry("the engine cancelled the call", after_s=ENGINE_AWAY_S)
        self._tools.taken.add(self._version)
        self._tools.failing.answered(self._question.run_id, role, self._question.key)
        self._tools.metrics.count_answer(
            role,
            generation.model_version,
            seconds=generation.engine_seconds,
            prompt=generation.prompt_tokens,
            cached=generation.cached_tokens,
            completion=generation.completion_tokens,
        )
        self._tools.usage.add(
            self._question.run_id,
            role,
            generation.prompt_tokens,
            generation.completion_tokens,
            generation.engine_seconds,
        )
        tokens_key = (
            self._keep(generation.tokens)
            if generation.tokens and role in self._spec.training.roles
            else ""
        )
        provenance = self._provenance(
            generation.prompt_tokens,
            generation.completion_tokens,
            generation.engine_seconds,
            generation.model_version,
            tokens_key,
            generation.finish_reason,
            generation.served_by,
        )
        text, reasoning = storable(generation.text), storable(generation.reasoning)
        return Answer(text, generation.finish_reason, provenance, RawAnswer.of(text, reasoning))

    def _keep(self, tokens: Tokens) -> str:
        """Store the tokens as sampled, before the record that names them."""
        question = self._question
        content = digest(f"{tokens.prompt_ids}{tokens.completion_ids}")
        key = keys.tokens(question.run_id, question.proof_id, str(question.name), content)
        self._tools.keep(key, tokens)
        return key

    def _provenance(
        self,
        prompt_tokens: int,
        completion_tokens: int,
        engine_seconds: float,
        version: str,
        tokens_key: str = "",
        finish_reason: str = "",
        served_by: str = "",
    ) -> Provenance:
        return Provenance(
            model_version=version,
            prompt_digest=self._question.prompt.digest,
            seed=self._seed,
            sampling=self._sampling,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            engine_seconds=engine_seconds,
            tokens_key=tokens_key,
            finish_reason=finish_reason,
            served_by=served_by,
        )


def answers_of(
    asked: Sequence[Asked], unneeded: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Answer]]:
    """The answers as they come, each with the position of its question, so that each can be stored
    at once.

    Raises Retry when the engine is away or the process stops, Reject when the engine has no answer
    for the run, Cancelled when `unneeded` became true. A call that must be made again later does
    not end the others: Retry is then raised after their answers. Whatever else ends this cancels
    the calls that still run.
    """
    if not asked:
        return
    waiting, polls, began_s = dict(enumerate(asked)), 0, time.monotonic()
    later: Retry | None = None
    tools, question = asked[0]._tools, asked[0]._question
    span = tools.span(
        f"engine {question.role}", question.run_id, question.proof_id, model=question.version
    )
    try:
        with span:
            while waiting:
                first = next(iter(waiting))
                for position, one in list(waiting.items()):
                    try:
                        answer = one.poll(
                            _poll_s(began_s, len(waiting)) if position == first else 0.0
                        )
                    except Retry as wish:
                        later = later or wish
                        del waiting[position]
                        continue
                    if answer is not None:
                        del waiting[position]
                        yield position, answer
                if waiting:
                    _stop_if_asked(tools)
                if first in waiting and time.monotonic() - began_s >= (polls + 1) * POLL_S:
                    polls += 1
                    if polls in (1, 2, 4, 8) or polls % RARELY == 0:
                        _stop_if(unneeded)
    finally:
        for one in waiting.values():
            one.cancel()
    if later:
        raise later


def _poll_s(began_s: float, waiting: int) -> float:
    """How long the first call is waited for. An answer to another one is found after a twentieth of
    its time.
    """
    return POLL_S if waiting == 1 else min(POLL_S, max(0.02, (time.monotonic() - began_s) / 20))


def _stop_if_asked(tools: Tools) -> None:
    if tools.must_cancel:
        raise Retry("the process is stopping", after_s=0.0)


def _stop_if(unneeded: Callable[[], bool]) -> None:
    try:
        is_unneeded = unneeded()
    except StoreError as error:  # unknown: the answer is paid for, so wait for it
        log.warning("store_away", reason=str(error))
        return
    if is_unneeded:
        raise Cancelled
