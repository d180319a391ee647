"""The protocol between the Triton model and the engine inside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

from proofloop.engine.base import ChatMessage, FinishReason
from proofloop.errors import CallRefused
from proofloop.schema.records import Sampling


def encode(
    tokenizer: Any,
    prompt: str | Sequence[ChatMessage],
    template_values: Mapping[str, Any] = MappingProxyType({}),
) -> list[int]:
    """The token ids of a prompt: raw text unchanged, messages in the model's chat template.

    A message cannot end its turn: proofs are untrusted. Raises CallRefused.
    """
    try:
        if isinstance(prompt, str):
            return list(tokenizer.encode(prompt))
        turns = [
            {"role": message.role, "content": _without_marks(message.content, tokenizer)}
            for message in prompt
        ]
        filled = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False, **template_values
        )
        # TensorRT-LLM's tokenizer of DeepSeek-V3.2 returns text that contains all special tokens
        return list(
            tokenizer.encode(filled, add_special_tokens=False)
            if isinstance(filled, str)
            else filled
        )
    except Exception as error:  # a template may raise anything
        raise CallRefused(
            f"the tokenizer cannot read the prompt: {type(error).__name__}: {error}"
        ) from error


def _without_marks(text: str, tokenizer: Any) -> str:
    """The text with a space in each mark that the tokenizer would read as one of its own tokens,
    such as the end of a turn.
    """
    marks = _marks(tokenizer)
    return marks.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) if marks else text


@lru_cache(maxsize=16)
def _marks(tokenizer: Any) -> re.Pattern[str] | None:
    """The special tokens, and others in angle brackets: DeepSeek's turns are no special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = [
        each.content
        for each in added
        if each.special or (each.content.startswith("<") and each.content.endswith(">"))
    ]
    return re.compile("|".join(map(re.escape, found))) if found else None


@dataclass(frozen=True)
class ServingRequest:
    """One call. `prompt` is raw text, or messages for the model's chat template; `top_k` = 0 means
    all tokens.
    """

    id: str
    prompt: str | tuple[ChatMessage, ...]
    sampling: Sampling
    seed: int
    top_k: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """The state of a call. It has ended if there is a finish reason.

    `cached_tokens`: how many prompt tokens came from the prompt cache. `seconds`: the engine's time
      for the call.
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
    """A call that was submitted to an engine."""

    def progress(self, want_text: bool) -> Progress:
        """The current state. `want_text` adds the text, which costs time; a call that has ended
        always has it.

        Raises EngineError if the call failed.
        """
        ...

    def cancel(self) -> None: ...


class ServingEngine(Protocol):
    """A loaded model version. `begin` may be called from any thread."""

    def begin(self, request: ServingRequest, when_done: Callable[[], None]) -> RunningCall: ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens without special tokens."""
        ...

    def counts(self) -> tuple[int, int]:
        """The numbers of running and of waiting calls."""
        ...

    def close(self) -> None: ...
