"""The engine for any OpenAI-compatible server: chat completions, always streamed, over httpx.

All streams of one engine live on one event loop in a background thread (512 streams are 512 tasks, not threads), so
build the engine after a fork. A running call has no time limit of its own: only silence (`idle_timeout_s`) ends it.
The key never enters a log line or an error.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import structlog

from proofloop.engine.base import Call, GenerationRequest
from proofloop.engine.openai_call import OpenAICall
from proofloop.engine.openai_refusal import Refusal
from proofloop.engine.openai_settings import OpenAISettings
from proofloop.engine.openai_stream import BrokenStream, EventSplitter, StreamedAnswer, too_long
from proofloop.errors import AccessRefused, CallRefused, EngineError

log = structlog.get_logger(__name__)

AFTER_FINISH_S = 5.0  # after the finish reason: the usage may follow
AFTER_DONE_S = 0.2  # after [DONE]: the end of the body, so that the connection can be used again
REFUSAL_BYTES = 64 * 1024


class TransientFailure(Exception):
    """One attempt failed in a way another attempt may not; `wait_s` is what the server asked for."""

    def __init__(self, problem: str, wait_s: float | None = None) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class FieldRefused(Exception):
    """The server does not know a field we can do without: ask again without it."""


class OpenAIEngine:
    """Answers from an OpenAI-compatible server."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._tls = httpx.create_ssl_context()
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._idle_clients: list[httpx.AsyncClient] = []
        self._refused_fields: set[str] = set()
        self._said_usage_is_estimated = False
        self._calls: set[OpenAICall] = set()
        self._lifecycle = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> Call:
        call = OpenAICall(request, self._settings, self._loop)
        with self._lifecycle:
            if self._closed:
                raise EngineError("the engine is closed", retryable=True)
            self._loop.call_soon_threadsafe(self._start, call)
        return call

    def close(self) -> None:
        """Cancel what runs, close the connections, end the thread. Safe to call twice."""
        with self._lifecycle:
            was_closed, self._closed = self._closed, True
        if was_closed:
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, call: OpenAICall) -> None:
        call.task = self._loop.create_task(self._run(call))
        self._calls.add(call)
        call.task.add_done_callback(call.settle)
        call.task.add_done_callback(lambda _: self._calls.discard(call))

    async def _stop(self) -> None:
        tasks = [call.task for call in self._calls if call.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._idle_clients:
            await client.aclose()

    async def _run(self, call: OpenAICall) -> None:
        """Attempt until whole. The slot is kept while waiting: a busy server is not to be asked more."""
        async with self._slots, self._borrow_client() as client:
            attempt = 1
            while (failure := await self._attempt(call, client)) is not None:
                await asyncio.sleep(self._wait_after(failure, attempt, call.request.id))
                attempt += 1
        self._warn_of_estimates(call)

    @asynccontextmanager
    async def _borrow_client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client and its connection for one call: httpx's pool goes through all of its connections at every request,
        which at 2000 streams took longer than the answers."""
        client = self._idle_clients.pop() if self._idle_clients else self._settings.open_client(self._tls)
        try:
            yield client
        finally:
            self._idle_clients.append(client)

    def _wait_after(self, failure: TransientFailure, attempt: int, request_id: str) -> float:
        """The seconds before the next attempt. Raises EngineError when there is to be none."""
        wait_s = self._settings.backoff_s(attempt, random.random()) if failure.wait_s is None else failure.wait_s
        problem = f"{failure}; attempt {attempt} of max_attempts = {self._settings.max_attempts}"
        if wait_s > self._settings.longest_wait_s:
            problem += f"; asks to wait {wait_s:.0f} s, over longest_wait_s = {self._settings.longest_wait_s}"
        elif attempt < self._settings.max_attempts:
            log.info("engine_attempt_failed", request_id=request_id, problem=problem, wait_s=round(wait_s, 3))
            return wait_s
        raise EngineError(problem, retryable=True, after_s=failure.wait_s)

    async def _attempt(self, call: OpenAICall, client: httpx.AsyncClient) -> TransientFailure | None:
        """Send the request, again if the server refuses a field, and time it. Returns what another attempt may mend."""
        started = time.monotonic()
        try:
            while True:
                with suppress(FieldRefused):
                    await self._stream_until_whole(call, client)
                    return None
        except TransientFailure as failure:
            return failure
        finally:
            call.engine_seconds += time.monotonic() - started

    async def _stream_until_whole(self, call: OpenAICall, client: httpx.AsyncClient) -> None:
        call.begin_attempt()
        problem = "the stream ended without a finish reason"
        try:
            await self._stream_until_silent(call, client)
        except httpx.RequestError as error:
            problem = f"{type(error).__name__}: {error}"
        except BrokenStream as error:
            problem = str(error)
            if not error.retryable:
                raise EngineError(self._say(problem), retryable=False) from None
        if not call.answer.is_whole:
            raise TransientFailure(self._say(problem))

    async def _stream_until_silent(self, call: OpenAICall, client: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(self._settings.idle_timeout_s) as idle:
                await self._stream(call, client, idle)
        except TimeoutError:
            if not call.answer.is_whole:
                problem = f"nothing came for idle_timeout_s = {self._settings.idle_timeout_s}"
                raise EngineError(self._say(problem), retryable=True) from None

    async def _stream(self, call: OpenAICall, client: httpx.AsyncClient, idle: asyncio.Timeout) -> None:
        body = self._settings.body(call.request, without=self._refused_fields | call.left_out)
        async with client.stream("POST", "chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                text = (await _read_start(response, REFUSAL_BYTES)).decode(errors="replace")
                refusal = Refusal(response.status_code, text, response.headers.get("retry-after"))
                call.left_out |= (unknown := refusal.unknown_fields(body))
                raise FieldRefused if unknown else self._failure(refusal)
            self._remember_refused(call.left_out)
            async for event in _events(response, self._settings.max_answer_bytes):
                call.answer.absorb(event)
                idle.reschedule(self._loop.time() + self._patience_s(call.answer))

    def _patience_s(self, answer: StreamedAnswer) -> float:
        if answer.done:
            return AFTER_DONE_S
        return AFTER_FINISH_S if answer.is_whole else self._settings.idle_timeout_s

    def _failure(self, refusal: Refusal) -> Exception:
        problem = self._say(f"status {refusal.status}: {refusal.message()}")
        if refusal.is_retryable:
            return TransientFailure(problem, refusal.wait_s())
        if refusal.is_about_access:
            return AccessRefused(problem)
        return CallRefused(problem) if refusal.is_about_the_call else EngineError(problem, retryable=False)

    def _remember_refused(self, fields: set[str]) -> None:
        """Only once an answer came without them: a complaint may name a field that it merely quotes."""
        if news := sorted(fields - self._refused_fields):
            self._refused_fields |= fields
            log.warning("engine_field_refused", fields=news, server=self._settings.where)

    def _say(self, problem: str) -> str:
        return self._settings.redact(f"{self._settings.where}: {problem}")

    def _warn_of_estimates(self, call: OpenAICall) -> None:
        if call.answer.usage is None and not self._said_usage_is_estimated:
            self._said_usage_is_estimated = True
            log.warning("engine_reports_no_usage", server=self._settings.where, token_counts="estimated")


async def _events(response: httpx.Response, limit_bytes: int) -> AsyncIterator[bytes]:
    """The events of a stream; the body of a server that answers in one piece is one event."""
    if "application/json" in response.headers.get("content-type", ""):
        body = await _read_start(response, limit_bytes)
        if len(body) == limit_bytes:
            raise too_long(len(body), limit_bytes)
        yield body
        return
    splitter = EventSplitter(limit_bytes)
    async for data in response.aiter_bytes():
        for event in splitter.feed(data):
            yield event


async def _read_start(response: httpx.Response, limit_bytes: int) -> bytes:
    """The body, or as much of it as the limit allows."""
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])
