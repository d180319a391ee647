"""One attempt of a call: sends the request and reads the streamed response. Each failure is an
AttemptFailed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus

import aiohttp

from proofloop.engine.openai import hints
from proofloop.engine.openai.adapters import ServerAdapters
from proofloop.engine.openai.body import BodyReader
from proofloop.engine.openai.call import OpenAICall
from proofloop.engine.openai.connection import REFUSAL_BYTES, Connection, read_up_to
from proofloop.engine.openai.failure import BAD_REQUEST, STREAM_CUT, AttemptFailed, Refusal
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.engine.openai.stream import GAVE_UP, StreamDeadline
from proofloop.engine.rate_limits import RateLimiter

NO_COMPLETION = "the server sent no chat completion"


class FieldRefused(Exception):
    """The server does not know an optional field: send the request again without it."""


class Attempt:
    """Fills `call.answer`."""

    def __init__(
        self,
        call: OpenAICall,
        connection: Connection,
        settings: OpenAISettings,
        rate_limiter: RateLimiter,
        adapters: ServerAdapters,
    ) -> None:
        self._call, self._answer = call, call.begin_attempt()
        self._connection, self._settings = connection, settings
        self._rate_limiter = rate_limiter
        self._adapters = adapters

    async def run(self, without: Collection[str]) -> None:
        """Raises AttemptFailed, FieldRefused, CallRefused for an answer that is too long, and
        EngineError for an adapter that cannot be loaded.

        Errors after the finish reason are ignored: the answer is complete.
        """
        failure: AttemptFailed | None = None
        try:
            async with self._adapters.use(self._call.request.model) as name:
                self._call.served_name = name
                await self._stream_until_silent(without)
        except self._connection.errors as error:
            failure = self._connection.failure(error)
        except AttemptFailed as error:
            failure = error
        if (
            self._answer.done
            and not self._answer.is_whole
            and not self._settings.needs_finish_reason
        ):
            self._answer.assume_finished(self._call.request.sampling.max_tokens)
        if not self._answer.is_whole:
            raise failure or self._unfinished()
        if self._answer.finish_reason in GAVE_UP:
            raise AttemptFailed(
                "failed", f'the server ended the answer with "{self._answer.finish_reason}"'
            )

    async def _stream_until_silent(self, without: Collection[str]) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        deadline = StreamDeadline(settings.silence_s, settings.content_timeout_s, loop.time())
        timer = asyncio.timeout_at(deadline.first)
        try:
            async with timer:
                await self._stream(without, deadline, timer)
        except TimeoutError:
            if not timer.expired():  # the connection's own timeout
                raise
            if not self._answer.done:
                raise AttemptFailed("silent", deadline.problem(loop.time())) from None

    async def _stream(
        self, without: Collection[str], deadline: StreamDeadline, timer: asyncio.Timeout
    ) -> None:
        body = self._settings.body(self._call.request, self._call.served_name, without=without)
        response = await self._connection.ask(json.dumps(body).encode())
        try:
            self._rate_limiter.obey_headers(response.headers, self._settings.longest_wait_s)
            if response.status != HTTPStatus.OK:
                raise await self._refused(response, body)
            reader = BodyReader(self._settings.max_answer_bytes)
            try:
                await self._read(response, reader, deadline, timer)
            except self._connection.errors:
                with suppress(AttemptFailed):
                    self._finish(reader)
                raise
            self._finish(reader)
            if not self._answer.began:
                raise self._no_answer(response, reader)
        finally:
            response.close()  # ends the call at the server, unless the response has ended

    async def _read(
        self,
        response: aiohttp.ClientResponse,
        reader: BodyReader,
        deadline: StreamDeadline,
        timer: asyncio.Timeout,
    ) -> None:
        loop, content = asyncio.get_running_loop(), response.content
        while data := await content.readany():
            for event in reader.feed(data):
                self._answer.absorb(event)
            if content.at_eof():
                return
            until = deadline.extend(self._answer, loop.time())
            if not 0 <= until - (timer.when() or 0.0) < deadline.precision_s:
                timer.reschedule(until)

    def _finish(self, reader: BodyReader) -> None:
        for event in reader.end():
            self._answer.absorb(event)

    async def _refused(self, response: aiohttp.ClientResponse, body: Collection[str]) -> Exception:
        text = (await read_up_to(response, REFUSAL_BYTES)).decode(errors="replace")
        headers = response.headers
        refusal = Refusal(
            response.status, text, headers.get("retry-after"), headers.get("retry-after-ms")
        )
        if unknown := refusal.unknown_fields(body):
            self._call.left_out |= unknown
            return FieldRefused()
        hint = hints.about_refusal(
            refusal,
            self._settings,
            _without_query(headers.get("location", "")),
            self._call.request.sampling.max_tokens,
        )
        if not hint and self._may_lack_the_model(refusal):
            if self._adapters.has(model := self._call.request.model):
                self._adapters.forget(model)
                raise AttemptFailed("failed", "the server has lost the adapter: did it restart?")
            served = await self._connection.served_models()
            hint = hints.about_model(self._call.served_name, served, self._settings)
        problem = f"status {refusal.status}: {refusal.message() or 'without a message'}"
        cause = f"the server answered with status {refusal.status}"
        return AttemptFailed(refusal.kind, problem, wait_s=refusal.wait_s(), hint=hint, cause=cause)

    def _may_lack_the_model(self, refusal: Refusal) -> bool:
        return refusal.kind == "unusable" or (
            refusal.status in BAD_REQUEST and self._call.served_name in refusal.message()
        )

    def _no_answer(self, response: aiohttp.ClientResponse, reader: BodyReader) -> AttemptFailed:
        """The failure of a response with status 200 and without an answer."""
        if not reader.is_foreign:
            return self._unfinished()
        kind = response.headers.get("content-type", "none")
        shown = reader.start.decode(errors="replace")
        hint = hints.about_address(self._settings, is_web_page=shown.lstrip().startswith("<"))
        problem = (
            f"the server sent no chat completion: status 200, content type {kind}, begins with:"
            f" {shown}"
        )
        return AttemptFailed("address", problem, hint=hint, cause=NO_COMPLETION)

    def _unfinished(self) -> AttemptFailed:
        """The failure of a response that ended before its answer was complete."""
        if self._answer.done:
            return AttemptFailed(
                "failed", "the answer ended without a finish reason", hint=hints.NO_FINISH_REASON
            )
        received = sum(map(len, self._answer.text + self._answer.reasoning))
        problem = f"{STREAM_CUT} after {received} characters, without a finish reason"
        return AttemptFailed("failed", problem, cause=STREAM_CUT)


def _without_query(location: str) -> str:
    """The target of a redirect without its query, which may hold a secret."""
    return location.partition("?")[0][:200]
