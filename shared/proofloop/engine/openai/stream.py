"""Collects the events of an OpenAI-compatible stream into one Generation. No I/O.

An answer is complete at its finish reason: not every server sends `[DONE]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from proofloop.engine.base import FinishReason, Generation, GenerationRequest
from proofloop.engine.openai.body import DONE, answer_too_long
from proofloop.engine.openai.chunk import Chunk, Usage, parse_event, plain_text, read_chunk
from proofloop.errors import CallRefused, EngineError
from proofloop.schema.records import Tokens

STOPPED = frozenset(
    {"stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call"}
)
CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
GAVE_UP = frozenset(  # the server failed, not the call: a retry may help
    {"abort", "error", "cancelled", "timeout", "network_error", "insufficient_system_resource"}
)

CHARACTERS_PER_TOKEN = 4  # a rule of thumb for English, for servers that report no usage
NUMBER_BYTES = 8  # the size of a token id or log-probability, for the limit of an answer

PRECISION = 0.01
"""A silence may end this share of `idle_timeout_s` too early: a timer that every piece of an answer
moves costs more than reading the piece.
"""

AFTER_FINISH_S = 5.0  # the wait after the finish reason: the usage may follow
AFTER_DONE_S = 0.2  # the wait after [DONE]: the connection can be reused only after the body's end


@dataclass
class StreamedAnswer:
    """One answer while it arrives, of at most `limit_bytes`."""

    limit_bytes: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    prompt_ids: tuple[int, ...] | None = None
    completion_ids: list[int | None] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None
    began: bool = False
    done: bool = False
    size_bytes: int = 0

    def absorb(self, event: bytes) -> None:
        """Add one event. Raises AttemptFailed for an unreadable event, and for an error of the
        server.
        """
        if event == DONE:
            self.done = True
            return
        body = parse_event(event)
        if text := plain_text(body):
            self.began = True
            self._add_text(self.text, text)
            self._check_size()
        else:
            self._add(read_chunk(body, event))

    def _add(self, chunk: Chunk) -> None:
        self.began = self.began or chunk.has_choices
        self.usage = chunk.usage or self.usage
        self.prompt_ids = self.prompt_ids if chunk.prompt_ids is None else chunk.prompt_ids
        self._add_text(self.text, chunk.text)
        self._add_text(self.reasoning, chunk.reasoning)
        self.logprobs += chunk.logprobs
        self.completion_ids += chunk.token_ids
        self.size_bytes += NUMBER_BYTES * (len(chunk.logprobs) + len(chunk.token_ids))
        self.finish_reason = chunk.finish_reason.lower() or self.finish_reason
        self._check_size()

    def _check_size(self) -> None:
        if self.size_bytes > self.limit_bytes:
            raise answer_too_long(self.limit_bytes)

    def _add_text(self, pieces: list[str], piece: str) -> None:
        if piece:
            pieces.append(piece)
            self.size_bytes += len(piece)

    def assume_finished(self, max_tokens: int) -> None:
        """Treat the end of the stream as the finish: "length" if the server counted `max_tokens`
        tokens.
        """
        is_cut_off = self.usage is not None and self.usage.completion_tokens >= max_tokens
        self.finish_reason = "length" if is_cut_off else "stop"

    @property
    def is_whole(self) -> bool:
        return self.finish_reason is not None

    @property
    def counted(self) -> Usage | None:
        """The server's counts; None if it sent none, or zeros in place of them."""
        usage, has_text = self.usage, bool(self.text or self.reasoning)
        is_count = usage and usage.prompt_tokens and (usage.completion_tokens or not has_text)
        return usage if is_count else None

    def completion_tokens(self) -> int:
        """The server's count, or the number of ids or log-probabilities, or an estimate from the
        text.
        """
        if counted := self.counted:
            return counted.completion_tokens
        pieces = self.reasoning + self.text
        return (
            len(self.completion_ids)
            or len(self.logprobs)
            or max(len(pieces), _estimate(sum(map(len, pieces))))
        )

    def prompt_tokens(self, request: GenerationRequest) -> int:
        """The server's count, or the number of prompt ids, or an estimate from the text."""
        if counted := self.counted:
            return counted.prompt_tokens
        characters = sum(len(message.content) for message in request.messages)
        return len(self.prompt_ids or ()) or _estimate(characters)

    def cached_tokens(self) -> int:
        """The server's count, 0 without one."""
        return self.usage.cached_tokens if self.usage else 0

    def tokens(self) -> Tokens | None:
        """Ids and log-probabilities, or None unless all of them arrived."""
        ids = tuple(value for value in self.completion_ids if value is not None)
        logprobs = tuple(
            value for value in self.logprobs if value is not None and math.isfinite(value)
        )
        counts = {len(self.completion_ids), len(ids), len(logprobs), self.completion_tokens()}
        if not self.prompt_ids or not logprobs or len(counts) > 1:
            return None
        return Tokens(prompt_ids=self.prompt_ids, completion_ids=ids, logprobs=logprobs)

    def generation(
        self,
        request: GenerationRequest,
        *,
        engine_seconds: float,
        cancelled: bool,
        think_end: str,
        keep_tokens: bool,
        served_by: str = "",
    ) -> Generation:
        """The answer so far. A cancelled call keeps its partial text, without tokens to train
        on.
        """
        reasoning, text = split_reasoning(joined(self.reasoning), joined(self.text), think_end)
        return Generation(
            text=text,
            reasoning=reasoning,
            finish_reason="cancelled"
            if cancelled
            else read_finish_reason(self.finish_reason or ""),
            prompt_tokens=self.prompt_tokens(request),
            completion_tokens=self.completion_tokens(),
            engine_seconds=engine_seconds,
            model_version=request.model,
            cached_tokens=self.cached_tokens(),
            tokens=self.tokens() if keep_tokens and not cancelled else None,
            served_by=served_by,
        )


def _estimate(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def joined(pieces: list[str]) -> str:
    """Join the pieces. Two halves of a surrogate pair become a character; a single half becomes a
    replacement character.
    """
    text = "".join(pieces)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def split_reasoning(reasoning: str, text: str, think_end: str) -> tuple[str, str]:
    """Move reasoning that a server left in the text, up to the last `think_end`, to the
    reasoning.
    """
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
    """The finish reason as `Generation` names it. Raises EngineError for an aborted answer, which a
    retry may fix, and CallRefused for a filtered one.
    """
    if name in STOPPED:
        return "stop"
    if name in CUT_OFF:
        return "length"
    problem = f'the server ended the answer with finish reason "{name}"'
    raise EngineError(problem, retryable=True) if name in GAVE_UP else CallRefused(problem)


class StreamDeadline:
    """The deadline until which a stream may stay silent. Times are seconds of one clock.

    Any byte extends the deadline by `idle_s`, which is infinite for an answer that comes whole.
    Only a piece of the answer extends that of `content_s`, which ends the stream of a server that
    sends only comments.
    """

    def __init__(self, idle_s: float, content_s: float, now: float) -> None:
        self._idle_s = idle_s
        self._content_s = content_s if math.isinf(idle_s) else max(idle_s, content_s)
        self.precision_s = min(idle_s, content_s) * PRECISION
        self._size_bytes = 0
        self._content_until = now + self._content_s
        self._end_until = math.inf
        self.first = min(now + idle_s, self._content_until)

    def extend(self, answer: StreamedAnswer, now: float) -> float:
        """The new deadline after some bytes arrived."""
        if answer.size_bytes > self._size_bytes:
            self._size_bytes, self._content_until = answer.size_bytes, now + self._content_s
        if not answer.is_whole and not answer.done:
            return min(now + self._idle_s, self._content_until)
        self._end_until = min(
            self._end_until, now + (AFTER_DONE_S if answer.done else AFTER_FINISH_S)
        )
        return self._end_until

    def problem(self, now: float) -> str:
        """The error message: which of the limits has passed."""
        if math.isinf(self._idle_s):
            return f"the server sent no whole answer for content_timeout_s = {self._content_s:g}"
        if now < self._content_until:
            return f"the server sent nothing for idle_timeout_s = {self._idle_s:g}"
        return f"the server sent only comments for content_timeout_s = {self._content_s:g}"
