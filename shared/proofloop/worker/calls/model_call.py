"""Calls a role's model: one rendered prompt in, one reply with its provenance out."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn

import structlog

from proofloop.engine.base import Call, ChatMessage, EndedCall, Generation, GenerationRequest
from proofloop.errors import CallRefused, EngineError, Retry
from proofloop.runs.costs import Spent
from proofloop.schema import keys
from proofloop.schema.records import Provenance, RawAnswer, Tokens, Verdict, derive_seed, digest
from proofloop.worker.calls.engine_trial import check_taken, is_answered
from proofloop.worker.calls.failing_calls import MOST_ROUNDS
from proofloop.worker.calls.model_request import PRIORITY, ModelReply, ModelRequest
from proofloop.worker.calls.waiting import Wait
from proofloop.worker.tools import Tools

log = structlog.get_logger()

MODEL_IN_LOG = "model"
"""The field of a log line with the version that the message's handler called."""

ENGINE_AWAY_S, LONGEST_AWAY_S = 2.0, 300.0
"""How long a message waits before a failed engine is called again; an engine may ask for more.

The wait doubles with each round in which other calls are answered. On a broker other postponed
messages may have to wait behind this one.
"""

MAX_REASON_CHARS = 500

_THIS_PROCESS = uuid.uuid4().hex[:8]
_NUMBERS = itertools.count()


def storable(text: str) -> str:
    """The text without lone surrogates: a JSON answer may contain them, a record cannot."""
    return text.encode("utf-8", "replace").decode()


class ModelCall:
    """One call of a role's model, from request to reply. All roles call their models by this.

    The steps:

    1. The handler looks for its stored answer, and makes a call only without one.
    2. A message joins the running call for the same request in this process.
    3. A redelivered message is postponed while another process has a lease on the call; then its
       handler looks for the stored answer once more (`running_calls`).
    4. Otherwise the engine is called.
    5. A failed call is retried later by postponing the message. After enough rounds in which other
       calls were answered it is given up, and its reply has a `failure`. An engine that no call can
       use is a matter of `Tools.unusable`.
    6. The reply is counted and its tokens are stored, once for all messages that share the call.
    7. The handler stores its record, which ends the call.
    """

    def __init__(self, request: ModelRequest, tools: Tools) -> None:
        structlog.contextvars.bind_contextvars(**{MODEL_IN_LOG: request.version})
        self.request = request
        self.tools = tools
        self._spec = tools.runs.spec(request.run_id)
        self._sampling = self._spec.sampling_of(request.role)
        self._seed = derive_seed(
            self._spec.seed, self._spec.seeds_of, request.proof_id, str(request.name)
        )
        self._call = tools.calls.join(request.call_id, self._submit)

    def _submit(self) -> Call:
        request = self.request
        generation = GenerationRequest(
            id=f"{request.role}:{request.proof_id}:{request.name}:{_THIS_PROCESS}-{next(_NUMBERS)}",
            model=request.version,
            messages=(ChatMessage("user", request.prompt.text),),
            sampling=self._sampling,
            seed=self._seed,
            affinity=request.proof_id,
            schema=request.prompt.schema,
            priority=PRIORITY[request.role] if request.priority is None else request.priority,
        )
        try:
            return self.tools.engine(self._spec, request.role).submit(generation)
        except EngineError as error:
            return EndedCall(error)  # it fails like any other call

    def reply(self, unneeded_once: str = "") -> ModelReply:
        """Wait for the reply. Raises what `replies_of` raises."""
        [(_, reply)] = replies_of([self], unneeded_once)
        return reply

    def when_done(self, callback: Callable[[], None]) -> None:
        self._call.when_done(callback)

    def reply_of_ended(self) -> ModelReply:
        """The reply of an ended call. Raises Retry if the call must be repeated later, Reject if
        the engine can answer no call of this run.
        """
        try:
            generation = self._call.result()
        except EngineError as failure:
            return self._once(partial(self._failed, failure))
        return self._once(partial(self._answered, generation))

    def cancel(self) -> None:
        self._call.cancel()

    def _once(self, make: Callable[[], ModelReply]) -> ModelReply:
        """Count the reply and keep its tokens once, however many messages share it."""
        reply = self._call.once(make)
        return reply if self._call.is_first else replace(reply, is_counted=True)

    # -- an answer

    def _answered(self, generation: Generation) -> ModelReply:
        if generation.finish_reason == "cancelled":
            raise Retry("the engine cancelled the call", after_s=ENGINE_AWAY_S)
        self._count_answer(generation)
        keeps_tokens = self.request.is_trained_on or self._spec.keeps_tokens(self.request.role)
        provenance = self._provenance(
            generation,
            generation.model_version,
            tokens_key=self._keep(generation.tokens) if generation.tokens and keeps_tokens else "",
            finish_reason=generation.finish_reason,
            served_by=generation.served_by,
        )
        text = storable(generation.text)
        raw = RawAnswer.of(text, storable(generation.reasoning))
        return ModelReply(text, generation.finish_reason, provenance, raw)

    def _count_answer(self, generation: Generation) -> None:
        request = self.request
        tools = self.tools
        tools.health.add_taken(request.run_id, request.role, request.version)
        tools.health.failing.answered(request.run_id, request.role, request.call_id)
        tools.metrics.count_answer(
            request.role,
            generation.model_version,
            seconds=generation.engine_seconds,
            prompt=generation.prompt_tokens,
            cached=generation.cached_tokens,
            completion=generation.completion_tokens,
        )
        self._count_cost(generation, calls=1)

    def _count_cost(self, of: Generation | EngineError, *, calls: int) -> None:
        spent = Spent(calls, of.prompt_tokens, of.completion_tokens, of.engine_seconds)
        self.tools.usage.add(self.request.run_id, self.request.role, spent)

    def _keep(self, tokens: Tokens) -> str:
        """Store the tokens as sampled, before the record that names them."""
        request = self.request
        content = digest(f"{tokens.prompt_ids}{tokens.completion_ids}")
        key = keys.tokens(request.run_id, request.proof_id, str(request.name), content)
        self.tools.keep(key, tokens)
        return key

    def _provenance(
        self, of: Generation | EngineError, version: str, **of_answer: str
    ) -> Provenance:
        return Provenance(
            model_version=version,
            prompt_digest=self.request.prompt.digest,
            seed=self._seed,
            sampling=self._sampling,
            prompt_tokens=of.prompt_tokens,
            completion_tokens=of.completion_tokens,
            engine_seconds=of.engine_seconds,
            **of_answer,
        )

    # -- a failure

    def _failed(self, failure: EngineError) -> ModelReply:
        self._count_cost(failure, calls=0)  # the server may charge for its attempts
        error = self._weighed(failure)
        rounds = 1
        if error.is_load:
            error = self._unless_too_long_busy(error)
        elif error.retryable:
            rounds = self._rounds_failed()
            if rounds >= MOST_ROUNDS:
                error = self._given_up(error, f"in {rounds} rounds")
        self._count_failure(error)
        if not isinstance(error, CallRefused):
            self._retry(error, rounds)
        return self._failed_reply(failure, error)

    def _failed_reply(self, failure: EngineError, error: EngineError) -> ModelReply:
        provenance = self._provenance(failure, self.request.version)
        raw = RawAnswer.of(storable(failure.partial), storable(failure.partial_reasoning))
        reason = storable(str(error)[:MAX_REASON_CHARS])
        verdict = Verdict(outcome="engine_failed", reason=reason, cause=error.cause)
        return ModelReply("", "failed", provenance, raw, verdict)

    def _weighed(self, error: EngineError) -> EngineError:
        """Test whether the engine refuses every call, after a refusal before the version took any
        call.
        """
        request = self.request
        health = self.tools.health
        if not isinstance(error, CallRefused) or health.has_taken(
            request.run_id, request.role, request.version
        ):
            return error
        try:
            pack = self.tools.runs.pack(request.run_id)
            engine = self.tools.engine(self._spec, request.role)
            check_taken(engine, self._spec, pack, request.role, request.version)
        except CallRefused as refusal:
            return EngineError(f"it refuses every call: {refusal}", retryable=False)
        except EngineError as away:
            return away
        health.add_taken(request.run_id, request.role, request.version)
        return error

    def _unless_too_long_busy(self, error: EngineError) -> EngineError:
        request = self.request
        failing = self.tools.health.failing
        busy_s = failing.refused_as_busy(request.run_id, request.role, request.call_id)
        if busy_s < failing.times.longest_busy_s:
            return error
        return self._given_up(error, f"for {busy_s / 3600:.1f} h")

    def _rounds_failed(self) -> int:
        request = self.request
        tools = self.tools

        def try_another() -> bool:
            engine = tools.engine(self._spec, request.role)
            pack = tools.runs.pack(request.run_id)
            return is_answered(
                engine,
                self._spec,
                pack,
                request.role,
                request.version,
                lambda: tools.shutdown.must_cancel,
            )

        return tools.health.failing.failed(
            request.run_id, request.role, request.call_id, try_another
        )

    def _given_up(self, error: EngineError, failed: str) -> CallRefused:
        """The error of a call that failed in too many rounds, or for too long, while others were
        answered.
        """
        request = self.request
        self.tools.health.failing.given_up(request.call_id)
        others = f"{failed}, while other calls of the {request.role} were answered"
        log.warning(
            "engine_call_given_up", call=request.call_id, problem=error.problem, failed=failed
        )
        return CallRefused(f"{error.problem}; {others}", hint=error.hint, cause=error.cause)

    def _count_failure(self, error: EngineError) -> None:
        if isinstance(error, CallRefused):
            reason = "refused"
        else:
            reason = "away" if error.retryable else "unusable"
        self.tools.metrics.engine_failures.labels(self.request.role, reason).inc()

    def _retry(self, error: EngineError, rounds: int) -> NoReturn:
        """Postpone the message, unless the engine is unusable and the message is given up."""
        if not error.retryable:
            problem = f"the engine cannot answer the {self.request.role}: {error}"
            self.tools.unusable.decide(
                problem, error, has_taken_any=self.tools.health.has_taken_any
            )
        self._warn_of_silence(error)
        after_s = min(max(ENGINE_AWAY_S * 2 ** (rounds - 1), error.after_s or 0.0), LONGEST_AWAY_S)
        raise Retry(f"engine: {error}", after_s=after_s) from error

    def _warn_of_silence(self, error: EngineError) -> None:
        """Warn once per outage and half minute, not once per message."""
        role = self.request.role
        if since := self.tools.health.failing.silence(self.request.run_id, role):
            kind = self._spec.engine.of(role).kind
            log.warning("engine_away", engine=kind, role=role, since=since, reason=str(error))


def replies_of(
    calls: Sequence[ModelCall], unneeded_once: str = ""
) -> Iterator[tuple[int, ModelReply]]:
    """Yield each reply as it comes, with the position of its call. The caller stores it at once.

    Raises Retry if the engine is unavailable or the process stops, Reject if the engine can answer
    no call of the run, Cancelled once the key `unneeded_once` is stored. If one call must be
    repeated later, the others continue, and Retry is raised after their replies. Any other error
    cancels the running calls.
    """
    if not calls:
        return
    tools = calls[0].tools
    request = calls[0].request
    running = dict(enumerate(calls))
    try:
        with tools.span(
            f"engine {request.role}", request.run_id, request.proof_id, model=request.version
        ):
            yield from _wait(running, tools, unneeded_once)
    finally:
        for call in running.values():
            call.cancel()


def _wait(
    running: dict[int, ModelCall], tools: Tools, unneeded_once: str
) -> Iterator[tuple[int, ModelReply]]:
    """Sleep until all calls have replied. A call leaves `running` with its reply."""
    later: Retry | None = None
    wait = Wait(unneeded_once)
    for position, call in running.items():
        call.when_done(partial(wait.wake, position))
    with tools.waiting.wait(wait):
        while running:
            position = wait.next()
            try:
                reply = running[position].reply_of_ended()
            except Retry as wish:
                later = later or wish
                del running[position]
            else:
                del running[position]
                yield position, reply
    if later:
        raise later
