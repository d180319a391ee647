"""The engine for OpenAI-compatible servers: chat completions, over aiohttp.

All streams of an engine run on one event loop in a background thread, so create the engine after a
fork. A running call has no time limit: only silence (`idle_timeout_s`) ends it. The key never
enters a log line or an error.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from proofloop.engine.base import ALL_IN_REASONING, ChatMessage, GenerationRequest
from proofloop.engine.event_loop import EventLoopEngine
from proofloop.engine.info import ResolveModel
from proofloop.engine.openai.adapters import ServerAdapters
from proofloop.engine.openai.attempt import Attempt, FieldRefused
from proofloop.engine.openai.call import OpenAICall
from proofloop.engine.openai.connection import Connection
from proofloop.engine.openai.failure import AttemptFailed
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.engine.rate_limits import shared_rate_limiter
from proofloop.engine.slots import Slots
from proofloop.errors import AccessRefused, EngineError
from proofloop.schema.records import Sampling

log = structlog.get_logger(__name__)

PROBE_WITHIN_S = 30.0
"""The timeout of a probe: a call for one token that shows whether the server answers at all."""

RATE_LIMIT_POLL_S = 1.0
"""How often a waiting call checks the rate limit again: other calls may use fewer tokens than
expected.
"""

WHILE_OTHERS = "while the server answers other calls"

MEAN_OVER = 50
"""The number of answers in the running mean of used tokens as a share of max_tokens."""


@dataclass
class ModelActivity:
    """The latest activity of one of the server's models. Times are on the monotonic clock; -1 means
    never.

    `answered`: the latest start of an answered attempt or probe. `unanswered`: the end of the last
    probe without an answer. `in_flight`: the running attempts without probes.
    """

    answered: float = -1.0
    unanswered: float = -1.0
    in_flight: int = 0


class OpenAIEngine(EventLoopEngine[OpenAICall]):
    """Answers from an OpenAI-compatible server."""

    def __init__(self, settings: OpenAISettings, resolve: ResolveModel = Path) -> None:
        """Raises ConfigError for an invalid proxy or certificate file in the environment."""
        self._settings = settings
        self._connection = Connection(settings)
        self._adapters = ServerAdapters(self._connection, settings, resolve)
        self._rate_limiter = shared_rate_limiter(
            settings.account, settings.requests_per_minute, settings.tokens_per_minute
        )
        self._starting = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._activity: defaultdict[str, ModelActivity] = defaultdict(ModelActivity)
        self._answers, self._share_used = 0, 1.0
        self._slots = Slots(settings.max_concurrency)
        self._refused_fields: set[str] = set()
        self._warned: set[str] = set()
        super().__init__("openai-engine")

    async def _prepare(self, model: str) -> None:
        try:
            async with self._adapters.use(model):
                pass
        except AttemptFailed as failure:
            raise failure.unavailable(self._message(failure.problem)) from None

    def _new_call(self, request: GenerationRequest) -> OpenAICall:
        return OpenAICall(request, self._settings, self._loop)

    async def _disconnect(self) -> None:
        await self._connection.close()

    async def _run(self, call: OpenAICall) -> None:
        """Attempt until the answer is complete. A waiting call keeps its slot: a busy server must
        not get more calls.
        """
        async with self._slots.hold(call.request.priority):
            try:
                while (failure := await self._attempt(call)) is not None:
                    await asyncio.sleep(await self._wait_after(failure, call))
            except EngineError as error:
                call.keep_partial(error)
                raise
        self._warn_about_answer(call)

    # -- one attempt
    # ----------------------------------------------------------------------------------------------

    async def _attempt(self, call: OpenAICall) -> AttemptFailed | None:
        """Send the request, and again if the server refuses a field. Returns the failure, if
        any.
        """
        expected = await self._start_when_allowed(call)
        started, activity = time.monotonic(), self._activity[call.request.model]
        call.was_alone = activity.in_flight == 0
        activity.in_flight += not call.is_probe
        try:
            while True:
                with suppress(FieldRefused):
                    attempt = Attempt(
                        call, self._connection, self._settings, self._rate_limiter, self._adapters
                    )
                    await attempt.run(self._refused_fields | call.left_out)
                    self._remember_refused(call.left_out)
                    activity.answered = max(activity.answered, started)
                    return None
        except AttemptFailed as failure:
            return failure
        finally:
            activity.in_flight -= not call.is_probe
            call.was_alone = call.was_alone and activity.in_flight == 0
            call.end_attempt(time.monotonic() - started)
            self._settle_tokens(call, expected)

    async def _start_when_allowed(self, call: OpenAICall) -> int:
        """Wait for the rate limit, in the order of the calls. Returns the expected tokens of the
        call.
        """
        if not self._starting.locked():  # no call waits before this one
            expected = self._expected_tokens(call)
            if not self._rate_limiter.take(expected):
                return expected
        async with self._starting:
            while (wait_s := self._rate_limiter.take(expected := self._expected_tokens(call))) > 0:
                await asyncio.sleep(min(wait_s, RATE_LIMIT_POLL_S))
            return expected

    def _expected_tokens(self, call: OpenAICall) -> int:
        answer_tokens = round(call.request.sampling.max_tokens * self._share_used)
        return call.answer.prompt_tokens(call.request) + answer_tokens

    def _settle_tokens(self, call: OpenAICall, expected: int) -> None:
        """Report the tokens of an attempt to the rate limiter. An attempt without any answer counts
        as free.
        """
        answer = call.answer
        tokens = (
            answer.prompt_tokens(call.request) + answer.completion_tokens() if answer.began else 0
        )
        self._rate_limiter.correct(expected, tokens)
        if answer.is_whole:
            self._answers = min(self._answers + 1, MEAN_OVER)
            share = answer.completion_tokens() / call.request.sampling.max_tokens
            self._share_used += (share - self._share_used) / self._answers

    # -- after a failed attempt
    # --------------------------------------------------------------------------------------

    async def _wait_after(self, failure: AttemptFailed, call: OpenAICall) -> float:
        """The wait before the next attempt. Raises EngineError if there is no next attempt."""
        if (final := await self._permanent_error(failure, call)) is not None:
            raise final
        attempts, problem = self._count(failure, call), self._message(failure.problem)
        limit = self._settings.max_attempts
        problem += f"; attempt {attempts}" + (
            f" of max_attempts = {limit}" if attempts <= limit else ""
        )
        wait_s, longest_s = failure.wait_s, self._settings.longest_wait_s
        if wait_s is not None and wait_s > longest_s:
            problem += f"; the server requests a wait of {wait_s:.0f} s, over longest_wait_s ="
            problem += f" {longest_s:g}"
            raise failure.unavailable(problem)
        is_last = attempts >= limit
        if is_last and failure.kind == "quota" and not await self._answers_others(call):
            raise failure.permanent(problem)
        if is_last and failure.kind in ("busy", "quota"):
            await self._give_up_busy(failure, call, problem)
        elif is_last or failure.kind == "silent":
            await self._give_up(failure, call, problem, is_last=is_last)
        return self._log_and_wait(problem, call, wait_s)

    def _count(self, failure: AttemptFailed, call: OpenAICall) -> int:
        """The attempts so far: those that found the server busy or unavailable, or all other
        failures. The two kinds count separately.
        """
        if failure.kind in ("busy", "quota"):
            call.refusals += 1
            call.refused_alone_at = (
                min(call.refused_alone_at, time.monotonic()) if call.was_alone else math.inf
            )
            return call.refusals
        call.failures += 1
        return call.failures

    async def _give_up(
        self, failure: AttemptFailed, call: OpenAICall, problem: str, *, is_last: bool
    ) -> None:
        """Raise an EngineError: the server is unavailable, or only this call fails.

        Returns after a silence if the server answers other calls and another attempt is left.
        """
        if not await self._answers_others(call):
            raise failure.unavailable(problem)
        if is_last:
            log.warning("engine_call_abandoned", request_id=call.request.id, problem=problem)
            raise failure.refused(f"{problem}, {WHILE_OTHERS}")

    async def _give_up_busy(self, failure: AttemptFailed, call: OpenAICall, problem: str) -> None:
        """Raise an EngineError if the server is overloaded: busy beside other calls, or for a
        probe.

        Returns while it is busy for this call only: perhaps a token rate limit, which a small probe
        does not reach. After `longest_busy_s`, raise CallRefused.
        """
        if not call.was_alone or not await self._answers_others(call):
            raise failure.unavailable(problem)
        busy_s = time.monotonic() - call.refused_alone_at
        if busy_s >= self._settings.longest_busy_s:
            problem += (
                f", refused for {busy_s:.0f} s while no other call was in flight and the server"
                " answered a probe"
            )
            log.warning("engine_call_abandoned", request_id=call.request.id, problem=problem)
            raise failure.refused(problem)

    async def _permanent_error(
        self, failure: AttemptFailed, call: OpenAICall
    ) -> EngineError | None:
        """The error for a failure that a retry cannot fix; None if a retry may help."""
        problem = self._message(failure.problem)
        if failure.kind == "call":
            return failure.refused(problem)
        if failure.kind == "balance":  # no probe: the balance may suffice for one token
            return failure.permanent(problem)
        if failure.kind not in ("access", "unusable", "address"):
            return None
        if any(activity.answered >= 0 for activity in self._activity.values()):
            if failure.kind == "address":
                return None
            if await self._answers_others(call):
                return failure.refused(f"{problem}, {WHILE_OTHERS}")
        if failure.kind == "access":
            return AccessRefused(problem, hint=failure.hint, cause=failure.cause)
        return failure.permanent(problem)

    def _log_and_wait(self, problem: str, call: OpenAICall, requested_s: float | None) -> float:
        """Log the failure and return the wait before the next attempt. A wait that the server
        requested pauses all calls.
        """
        chance = random.random()
        if requested_s is None:
            wait_s = self._settings.backoff_s(call.failures + call.refusals, chance)
        else:
            self._rate_limiter.pause(requested_s)
            wait_s = requested_s * (1 + chance / 10)  # not all at once
        log.info(
            "engine_attempt_failed",
            request_id=call.request.id,
            problem=problem,
            wait_s=round(wait_s, 3),
        )
        return wait_s

    async def _answers_others(self, call: OpenAICall) -> bool:
        """Whether the server answers another call or a probe from now on. Concurrent callers share
        one probe.
        """
        since, activity = time.monotonic(), self._activity[call.request.model]
        async with self._probing:
            if max(activity.answered, activity.unanswered) < since:
                await self._probe(call)
            return activity.answered >= since

    async def _probe(self, call: OpenAICall) -> None:
        """Request one token."""
        request = GenerationRequest(
            id=f"{call.request.id}:probe",
            model=call.request.model,
            messages=(ChatMessage("user", "Say yes."),),
            sampling=Sampling(max_tokens=1),
            seed=0,
        )
        with suppress(TimeoutError, EngineError):
            async with asyncio.timeout(PROBE_WITHIN_S):
                probe = OpenAICall(request, self._settings, self._loop, is_probe=True)
                if await self._attempt(probe) is None:
                    return
        self._activity[call.request.model].unanswered = time.monotonic()

    # -- messages
    # ----------------------------------------------------------------------------------------------

    def _remember_refused(self, fields: set[str]) -> None:
        """Omit these fields from now on. Call it after an answer without them: an error may quote a
        field that is not its cause.
        """
        if news := sorted(fields - self._refused_fields):
            self._refused_fields |= fields
            log.warning("engine_field_refused", fields=news, server=self._settings.where)

    def _message(self, problem: str) -> str:
        return self._settings.redact(f"{self._settings.where}: {problem}")

    def _warn_about_answer(self, call: OpenAICall) -> None:
        answer = call.answer
        if answer.counted is None:
            self._warn_once("engine_usage_missing", token_counts="estimated")
        # One token is a check.
        if answer.reasoning and not answer.text and call.request.sampling.max_tokens > 1:
            characters = sum(map(len, answer.reasoning))
            self._warn_once(
                "engine_answer_all_reasoning",
                characters=characters,
                finish_reason=answer.finish_reason,
                hint=ALL_IN_REASONING,
            )

    def _warn_once(self, event: str, **fields: object) -> None:
        if event not in self._warned:
            self._warned.add(event)
            log.warning(event, server=self._settings.where, **fields)
