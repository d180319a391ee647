"""The engine seam: a prompt goes in, an answer comes out, and a running call can be cancelled.

What a caller may not assume: that an engine knows token ids or log-probabilities, that calls end in
the order they began, or that a cancelled call stops at once. A call that failed raises EngineError
from `result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from proofloop.errors import EngineError
from proofloop.schema.records import Sampling, Tokens

FinishReason = Literal["stop", "length", "cancelled"]

LARGEST_SEED = 2**63 - 1
"""Calls have seeds of up to 63 bits; a check asks with the largest, which some servers refuse."""

ALL_IN_REASONING = (
    "the server put the whole answer into reasoning_content and left content empty: turn off its"
    " reasoning parser, or choose the parser of this model; raise max_tokens if the reasoning was"
    " cut off"
)
"""The hint for answers that hold only reasoning."""


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class GenerationRequest:
    """One call.

    `id` is unique per attempt; `model` names a served version; `affinity` groups calls that share a
    prompt prefix. `schema` is the JSON schema of the answer, for engines whose server supports
    structured output; others ignore it. Calls that wait for a slot start in the order of their
    `priority`, the lowest first.
    """

    id: str
    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    seed: int
    affinity: str = ""
    schema: Mapping[str, Any] | None = field(default=None, compare=False)
    priority: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Generation:
    """One answer.

    `text` is the final response, `reasoning` the reasoning before it; some servers put everything
    into `reasoning`. `tokens` is None if the engine reports no ids and log-probabilities.
    `cached_tokens` counts the prompt's tokens from the KV cache, 0 if the engine does not report
    them. `served_by` names the server and its model, if the engine calls one.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    engine_seconds: float
    model_version: str
    reasoning: str = ""
    tokens: Tokens | None = field(default=None, repr=False)
    cached_tokens: int = 0
    served_by: str = ""


class Call(Protocol):
    """A running call."""

    def result(self, timeout_s: float | None = None) -> Generation:
        """Wait for the answer. Raises EngineError, or TimeoutError after `timeout_s`; the call then
        continues.
        """
        ...

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call back, in any thread, once `result` returns or raises at once: now if the call has
        ended. The callback must not block.
        """
        ...

    def cancel(self) -> None:
        """Ask the engine to stop and to free the slot. `result` then returns with finish reason
        "cancelled". Safe to call twice.
        """
        ...


class FutureCall:
    """The part of a call that a future answers. `cancel` is the engine's."""

    def __init__(self, future: Future[Generation] | None = None) -> None:
        self.future = future or Future[Generation]()

    def result(self, timeout_s: float | None = None) -> Generation:
        return self.future.result(timeout_s)

    def when_done(self, callback: Callable[[], None]) -> None:
        self.future.add_done_callback(lambda _: callback())


class EndedCall:
    """A call that has ended before its caller waits for it."""

    def __init__(self, outcome: Generation | EngineError) -> None:
        self._outcome = outcome

    def result(self, timeout_s: float | None = None) -> Generation:
        if isinstance(self._outcome, EngineError):
            raise self._outcome
        return self._outcome

    def when_done(self, callback: Callable[[], None]) -> None:
        callback()

    def cancel(self) -> None:
        """Do nothing: the call has ended."""


class Engine(Protocol):
    """A source of answers, safe to use from many threads."""

    def submit(self, request: GenerationRequest) -> Call: ...

    def close(self) -> None: ...


@runtime_checkable
class LoadsVersions(Protocol):
    """An engine that can load a version before its first call. Other engines load at the first
    call.
    """

    def prepare(self, model: str) -> None:
        """Load the version beside the loaded ones, which keep serving. Raises EngineError."""
        ...


def prepare(engine: Engine, model: str) -> None:
    """Load a version, if the engine can do so before the first call. Raises EngineError."""
    if isinstance(engine, LoadsVersions):
        engine.prepare(model)
