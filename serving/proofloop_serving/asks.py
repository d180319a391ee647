"""What the Triton model asks of the engine inside it, whichever that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from proofloop.engine.base import ChatMessage, FinishReason
from proofloop.errors import CallRefused
from proofloop.records import Sampling


def encode(
    tokenizer: Any, prompt: str | Sequence[ChatMessage], template_values: Mapping[str, Any] = MappingProxyType({})
) -> list[int]:
    """The prompt's tokens: raw text as it is, messages in the model's chat template. Raises CallRefused."""
    try:
        if isinstance(prompt, str):
            return list(tokenizer.encode(prompt))
        turns = [{"role": message.role, "content": message.content} for message in prompt]
        said = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False, **template_values)
        # TensorRT-LLM's tokenizer of DeepSeek-V3.2 gives text, which has all special tokens in it
        return list(tokenizer.encode(said, add_special_tokens=False) if isinstance(said, str) else said)
    except Exception as error:  # there is no template, or it refuses these turns by any error it likes
        raise CallRefused(f"the tokenizer cannot read the prompt: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Ask:
    """One call. `prompt` is raw text, or messages for the model's chat template; `top_k` 0 means all tokens."""

    id: str
    prompt: str | tuple[ChatMessage, ...]
    sampling: Sampling
    seed: int
    top_k: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a call is. It has ended where there is a finish reason.

    `prompt` is the text that was read; `cached_tokens` of it were not read again; `seconds` of the engine's time.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    stop_reason: str = ""
    prompt_ids: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    experts: Sequence[Sequence[int]] = ()
    cached_tokens: int = 0
    seconds: float = 0.0


class RunningCall(Protocol):
    """A call that was begun."""

    def progress(self, want_text: bool) -> Progress:
        """Raises EngineError once the call has failed. Text costs time: a call that has ended always has it."""
        ...

    def cancel(self) -> None: ...


class ServingEngine(Protocol):
    """One model version, ready; begins calls from any thread."""

    def begin(self, ask: Ask, when_done: Callable[[], None]) -> RunningCall: ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, special ones left out."""
        ...

    def counts(self) -> tuple[int, int]:
        """How many calls run and how many wait."""
        ...

    def close(self) -> None: ...
