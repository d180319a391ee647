"""What arrives on an OpenAI-compatible stream, gathered into one Generation. No I/O: bytes in, an answer out.

The fields are OpenAI's; `reasoning_content` (or `reasoning`), `token_ids` and `prompt_token_ids` are vLLM's. An answer
is whole once a finish reason came: not every server says `[DONE]`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, JsonValue, ValidationError

from proofloop.engine.base import FinishReason, Generation, GenerationRequest
from proofloop.engine.openai_refusal import is_retryable
from proofloop.errors import CallRefused, EngineError
from proofloop.records import Tokens

STOPPED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call"})
CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
GAVE_UP = frozenset({"abort", "error", "cancelled", "timeout"})  # the server's own trouble: worth another try

SHOWN_BYTES = 200
CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English, for servers that report no usage
NUMBER_BYTES = 8  # what one token id or log-probability counts towards the limit


class BrokenStream(Exception):
    """The answer ended or turned unreadable before it was whole; `retryable` when the same call may work."""

    def __init__(self, problem: str, *, retryable: bool = True) -> None:
        super().__init__(problem)
        self.retryable = retryable


class Delta(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class TokenLogprob(BaseModel):
    logprob: float | None = None


class Logprobs(BaseModel):
    content: list[TokenLogprob] | None = None


class Choice(BaseModel):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None


class PromptUsage(BaseModel):
    cached_tokens: int | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptUsage | None = None


def _counts(usage: object) -> object:
    """None for what does not count both sides in OpenAI's words: the answer beside it is as good."""
    if not isinstance(usage, dict):
        return None
    return usage if all(isinstance(usage.get(name), int) for name in ("prompt_tokens", "completion_tokens")) else None


class Chunk(BaseModel):
    """One event of a stream, or the whole body of a server that does not stream."""

    choices: list[Choice] | None = None
    usage: Annotated[Usage | None, BeforeValidator(_counts)] = None
    prompt_token_ids: list[int] | None = None
    error: JsonValue = None


class EventSplitter:
    """Server-sent events: bytes in any pieces in, the payloads of `data:` lines out; comments are dropped."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        head, newline, rest = data.rpartition(b"\n")
        lines = b"".join([*self._pending, head]).split(b"\n") if newline else []
        if newline:
            self._pending, self._pending_bytes = [], 0
        self._pending.append(rest)
        self._pending_bytes += len(rest)
        if self._pending_bytes > self._limit_bytes:
            raise too_long(self._pending_bytes, self._limit_bytes)
        yield from (line[len(b"data:") :].strip() for line in lines if line.startswith(b"data:"))


@dataclass
class StreamedAnswer:
    """One answer while it arrives. `limit_bytes` bounds what is kept of it."""

    limit_bytes: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    prompt_ids: tuple[int, ...] | None = None
    completion_ids: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None
    done: bool = False
    size_bytes: int = 0

    def absorb(self, event: bytes) -> None:
        """Take in one event. Raises BrokenStream for what cannot be read or says that the server failed."""
        if event == b"[DONE]":
            self.done = True
        elif event:
            self._add(_read_chunk(event))

    def _add(self, chunk: Chunk) -> None:
        self.usage = chunk.usage or self.usage
        if chunk.prompt_token_ids is not None:
            self.prompt_ids = tuple(chunk.prompt_token_ids)
        for choice in (chunk.choices or [])[:1]:
            self._add_choice(choice)
        if self.size_bytes > self.limit_bytes:
            raise too_long(self.size_bytes, self.limit_bytes)

    def _add_choice(self, choice: Choice) -> None:
        delta = choice.delta or choice.message or Delta()
        self._add_text(self.text, delta.content)
        self._add_text(self.reasoning, delta.reasoning_content or delta.reasoning)
        entries = (choice.logprobs and choice.logprobs.content) or []
        self.logprobs += [entry.logprob for entry in entries]
        self.completion_ids += choice.token_ids or []
        self.size_bytes += NUMBER_BYTES * (len(entries) + len(choice.token_ids or []))
        self.finish_reason = choice.finish_reason or self.finish_reason

    def _add_text(self, pieces: list[str], piece: str | None) -> None:
        if piece:
            pieces.append(piece)
            self.size_bytes += len(piece)

    @property
    def is_whole(self) -> bool:
        return self.finish_reason is not None

    def completion_tokens(self) -> int:
        """As the server counted; else ids or log-probabilities; else an estimate: a piece may hold many tokens."""
        if self.usage:
            return self.usage.completion_tokens
        pieces = self.reasoning + self.text
        return len(self.completion_ids) or len(self.logprobs) or max(len(pieces), _estimate(sum(map(len, pieces))))

    def prompt_tokens(self, request: GenerationRequest) -> int:
        """As the server counted; else the prompt's ids; else an estimate from its length."""
        if self.usage:
            return self.usage.prompt_tokens
        characters = sum(len(message.content) for message in request.messages)
        return len(self.prompt_ids or ()) or _estimate(characters)

    def cached_tokens(self) -> int:
        """As the server counted, if it did."""
        details = self.usage.prompt_tokens_details if self.usage else None
        return (details.cached_tokens or 0) if details else 0

    def tokens(self) -> Tokens | None:
        """Ids and log-probabilities, if every one of them came."""
        logprobs = tuple(value for value in self.logprobs if value is not None and math.isfinite(value))
        counts = {len(self.completion_ids), len(logprobs), self.completion_tokens()}
        if not self.prompt_ids or not logprobs or len(counts) > 1:
            return None
        return Tokens(prompt_ids=self.prompt_ids, completion_ids=tuple(self.completion_ids), logprobs=logprobs)

    def generation(
        self, request: GenerationRequest, *, engine_seconds: float, cancelled: bool, think_end: str, keep_tokens: bool
    ) -> Generation:
        """The answer as it stands; a cancelled one is kept with what came, without tokens to train on."""
        reasoning, text = split_thinking("".join(self.reasoning), "".join(self.text), think_end)
        return Generation(
            text=text,
            reasoning=reasoning,
            finish_reason="cancelled" if cancelled else read_finish_reason(self.finish_reason or ""),
            prompt_tokens=self.prompt_tokens(request),
            completion_tokens=self.completion_tokens(),
            engine_seconds=engine_seconds,
            model_version=request.model,
            cached_tokens=self.cached_tokens(),
            tokens=self.tokens() if keep_tokens and not cancelled else None,
        )


def _estimate(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def _read_chunk(event: bytes) -> Chunk:
    try:
        chunk = Chunk.model_validate_json(event)
    except ValidationError:
        raise BrokenStream(f"no chat completion chunk: {event[:SHOWN_BYTES].decode(errors='replace')}") from None
    if chunk.error:
        raise _server_failure(chunk.error)
    return chunk


def _server_failure(error: JsonValue) -> BrokenStream:
    """An error sent as an event; vLLM puts the status that it would have been under `code`."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) else 500
    return BrokenStream(f"the server failed in the middle: {error}", retryable=is_retryable(status))


def split_thinking(reasoning: str, text: str, think_end: str) -> tuple[str, str]:
    """Move thinking that a server left in the text to the reasoning: what comes before the last `think_end`."""
    if reasoning or not think_end:
        return reasoning, text
    thinking, mark, final = text.rpartition(think_end)
    if mark:
        return thinking.removeprefix(_opening(think_end)), final.lstrip()
    is_cut_off = text.startswith(_opening(think_end))
    return (text.removeprefix(_opening(think_end)), "") if is_cut_off else ("", text)


def _opening(think_end: str) -> str:
    return think_end.replace("/", "", 1)


def read_finish_reason(name: str) -> FinishReason:
    """The three reasons the seam knows. A filtered answer never comes; an aborted one may, next time."""
    if name in STOPPED:
        return "stop"
    if name in CUT_OFF:
        return "length"
    problem = f'the server ended the answer with finish reason "{name}"'
    raise EngineError(problem, retryable=True) if name in GAVE_UP else CallRefused(problem)


def too_long(size_bytes: int, limit_bytes: int) -> EngineError:
    return CallRefused(
        f"the answer is longer than the engine keeps: {size_bytes} of max_answer_bytes = {limit_bytes}; "
        "raise it, or lower max_tokens"
    )
