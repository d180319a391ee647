"""Collects the tensors of a Triton stream into one Generation. No I/O.

Each chunk holds the whole text so far. Only proofloop's own model sends token ids and counts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.engine.openai.body import answer_too_long
from proofloop.engine.openai.stream import (
    CHARACTERS_PER_TOKEN,
    NUMBER_BYTES,
    read_finish_reason,
    split_reasoning,
)
from proofloop.schema.records import Tokens

Tensor = tuple[str | int | float, ...]

NUMBERS = {
    "BOOL": "?",
    "INT32": "i",
    "INT64": "q",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}
"""Triton's number types and the format characters of `struct`."""


def read_tensor(datatype: str, raw: bytes) -> Tensor:
    """Decode the elements of a tensor. Raises ValueError for an unknown type or broken bytes."""
    if datatype != "BYTES" and datatype not in NUMBERS:
        raise ValueError(f"unknown tensor type {datatype}")
    try:
        return tuple(_texts(raw) if datatype == "BYTES" else _numbers(NUMBERS[datatype], raw))
    except struct.error as error:
        raise ValueError(f"{len(raw)} bytes are not a tensor of type {datatype}") from error


def _numbers(letter: str, raw: bytes) -> Tensor:
    return struct.unpack(f"<{len(raw) // struct.calcsize(letter)}{letter}", raw)


def _texts(raw: bytes) -> Iterator[str]:
    """Decode strings. Each has its length before it; the last one may end inside a character."""
    place = 0
    while place < len(raw):
        (length,) = struct.unpack_from("<I", raw, place)
        yield raw[place + 4 : place + 4 + length].decode(errors="replace")
        place += 4 + length


@dataclass
class TritonAnswer:
    """One answer while it arrives, of at most `limit_bytes`. `prompt` is the prompt that a server
    may echo.
    """

    limit_bytes: int
    prompt: str = ""
    text: str = ""
    finish_reason: str = ""
    model_version: str = ""
    chunks: int = 0
    numbers: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def absorb(self, tensors: Mapping[str, Tensor]) -> None:
        """Add one chunk. Raises ValueError for an unreadable chunk, CallRefused for an answer that
        is too long.
        """
        self.chunks += 1
        for name, tensor in tensors.items():
            if name in ("text_output", "finish_reason", "model_version"):
                self._absorb_text(name, str(tensor[0]) if tensor else "")
            elif name != "stop_reason":
                self.numbers[name] = tuple(map(_number, tensor))
        size = len(self.text) + NUMBER_BYTES * sum(map(len, self.numbers.values()))
        if size > self.limit_bytes:
            raise answer_too_long(self.limit_bytes)

    def _absorb_text(self, name: str, value: str) -> None:
        if name == "text_output":
            self.text = value.removeprefix(self.prompt) or self.text
        elif name == "finish_reason":
            self.finish_reason = value or self.finish_reason
        else:
            self.model_version = value or self.model_version

    @property
    def began(self) -> bool:
        return self.chunks > 0

    def generation(
        self, request: GenerationRequest, *, engine_seconds: float, cancelled: bool, think_end: str
    ) -> Generation:
        """The answer so far. A cancelled call keeps its partial text, without tokens to train
        on.
        """
        reasoning, text = split_reasoning("", self.text, think_end)
        return Generation(
            text=text,
            reasoning=reasoning,
            finish_reason="cancelled" if cancelled else read_finish_reason(self.finish_reason),
            prompt_tokens=self._prompt_tokens(request),
            completion_tokens=self._completion_tokens(),
            cached_tokens=int(self._one("num_cached_tokens") or 0),
            engine_seconds=self._one("engine_seconds") or engine_seconds,
            model_version=self.model_version or request.model,
            tokens=None if cancelled else self._tokens(),
        )

    def _one(self, name: str) -> float | None:
        values = self.numbers.get(name)
        return values[0] if values else None

    def _prompt_tokens(self, request: GenerationRequest) -> int:
        """The server's count, or an estimate from the text."""
        characters = sum(len(message.content) for message in request.messages)
        return int(self._one("num_input_tokens") or math.ceil(characters / CHARACTERS_PER_TOKEN))

    def _completion_tokens(self) -> int:
        """The server's count, or an estimate from the text: at least one per chunk."""
        counted = self._one("num_output_tokens")
        return (
            max(self.chunks, math.ceil(len(self.text) / CHARACTERS_PER_TOKEN))
            if counted is None
            else int(counted)
        )

    def _tokens(self) -> Tokens | None:
        """Ids and log-probabilities, or None unless all of them arrived."""
        prompt_ids = self.numbers.get("prompt_token_ids", ())
        ids = self.numbers.get("token_ids", ())
        logprobs = tuple(filter(math.isfinite, self.numbers.get("logprobs", ())))
        if not prompt_ids or not ids or not len(ids) == len(logprobs) == self._completion_tokens():
            return None
        return Tokens(
            prompt_ids=tuple(map(int, prompt_ids)),
            completion_ids=tuple(map(int, ids)),
            logprobs=logprobs,
            routed_experts=self._experts(len(prompt_ids) + len(ids) - 1),
        )

    def _experts(self, positions: int) -> tuple[tuple[int, ...], ...] | None:
        """The routed experts of each token that the model read; None if the server sends none."""
        experts = tuple(map(int, self.numbers.get("routed_experts", ())))
        if not experts or len(experts) % positions:
            return None
        each = len(experts) // positions
        return tuple(experts[place : place + each] for place in range(0, len(experts), each))


def _number(value: str | int | float) -> float:
    """Some models send numbers as text, some with quotation marks."""
    return float(value.strip("\"' ")) if isinstance(value, str) else value
