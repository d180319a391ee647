"""The engine seam: a prompt goes in, an answer comes out, and a running call can be cancelled.

What a caller may not assume: that an engine knows token ids or log-probabilities, that calls end in
the order they began, or that a cancelled call stops at once. A call that failed raises EngineError
from `result`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from proofloop.schema.records import Sampling, Tokens

FinishReason = Literal["stop", "length", "cancelled"]

LARGEST_SEED = 2**63 - 1
"""Calls have seeds of up to 63 bits; a check asks with the largest, which some servers refuse."""

ALL_IN_REASONING = (
    "the server put everything into reasoning_content and nothing into content: turn off its"
    " reasoning parser, or let "
    "the model think in the form that the parser knows; raise max_tokens if the thinking was cut"
    " off"
)
"""The way out of answers that hold thinking alone."""


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class GenerationRequest:
    """One call.

    `id` is unique per attempt; `model` names a version in service; `affinity` groups calls that
    share a prompt prefix. `schema` is the JSON schema of the answer, for engines whose server can
    hold the model to it; others ignore it. Calls that wait for a slot start in the order of their
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

    `text` is the final response after any thinking, `reasoning` the thinking; some servers leave
    the text empty and put everything there. `tokens` only where the engine offers ids and
    log-probabilities; `cached_tokens` of the prompt were not computed again, 0 where the engine
    does not say. `served_by`: the server and the model's name there, where the engine asks one.
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
        """Wait for the answer. Raises EngineError, or TimeoutError when `timeout_s` has passed (the
        call runs on).
        """
        ...

    def cancel(self) -> None:
        """Ask the engine to stop: frees its slot; `result` then returns with finish reason
        "cancelled".

        Safe to call twice.
        """
        ...


class Engine(Protocol):
    """A source of answers, safe to use from many threads."""

    def submit(self, request: GenerationRequest) -> Call: ...

    def close(self) -> None: ...


@runtime_checkable
class LoadsVersions(Protocol):
    """An engine that can make a version ready before anyone asks for it; the others load with the
    first call.
    """

    def prepare(self, model: str) -> None:
        """Load the version beside those that are loaded. Raises EngineError; what served before
        goes on serving.
        """
        ...


def prepare(engine: Engine, model: str) -> None:
    """Make a version ready where the engine can. Raises EngineError."""
    if isinstance(engine, LoadsVersions):
        engine.prepare(model)
