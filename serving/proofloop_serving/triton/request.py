"""Parses a Triton request. Errors name the input, its value and the limit."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from proofloop.engine.base import ChatMessage
from proofloop.engine.triton.contract import LLMAPI_INPUTS, OUR_INPUTS
from proofloop.errors import CallRefused
from proofloop.schema.records import Sampling
from proofloop.schema.validation import first_problem
from proofloop_serving.calls import ServingRequest

DEFAULT_MAX_TOKENS = 32  # the default of TensorRT-LLM's SamplingParams
MOST_STOP_STRINGS = 16
_MESSAGES = TypeAdapter(tuple[ChatMessage, ...])

Read = Callable[[str], "np.ndarray | None"]


@dataclass(frozen=True)
class ParsedRequest:
    """A parsed Triton request: cancel the running call with the same id, or answer `request` with
    the outputs in the flags.
    """

    is_stop: bool = False
    request: ServingRequest | None = None
    streaming: bool = False
    want_echo: bool = True
    want_tokens: bool = False
    outputs_requested: frozenset[str] = frozenset()  # the requested optional outputs


def read_request(request_id: str, read: Read) -> ParsedRequest:
    """Read the contract's tensors by `read(name)`. Raises CallRefused for an invalid request."""
    values = {
        name: array for name in (*LLMAPI_INPUTS, *OUR_INPUTS) if (array := read(name)) is not None
    }
    if _scalar(values, "stop", False):
        return ParsedRequest(is_stop=True)
    outputs = ("finish_reason", "stop_reason", "cumulative_logprob")
    return ParsedRequest(
        request=_serving_request(request_id, values),
        streaming=_scalar(values, "streaming", False),
        want_echo=not _scalar(values, "sampling_param_exclude_input_from_output", False),
        want_tokens=_scalar(values, "return_tokens", False),
        outputs_requested=frozenset(
            name for name in outputs if _scalar(values, f"return_{name}", False)
        ),
    )


def _serving_request(request_id: str, values: dict[str, np.ndarray]) -> ServingRequest:
    top_k = _scalar(values, "sampling_param_top_k", 0)
    if top_k < 0:
        raise CallRefused(f"sampling_param_top_k = {top_k}: it must be 0 (all tokens) or more")
    seed = _scalar(values, "sampling_param_seed", None)
    return ServingRequest(
        id=request_id,
        prompt=_prompt(values),
        sampling=_sampling(values),
        seed=secrets.randbits(63) if seed is None else seed,
        top_k=top_k,
        stop=_stop(values),
    )


def _prompt(values: dict[str, np.ndarray]) -> str | tuple[ChatMessage, ...]:
    if ("messages" in values) == ("text_input" in values):
        raise CallRefused("send either text_input or messages")
    if "text_input" in values:
        if text := _text(
            "text_input", values["text_input"].flat[0] if values["text_input"].size else b""
        ):
            return text
        raise CallRefused("text_input is empty")
    try:
        messages = _MESSAGES.validate_json(_text("messages", _scalar(values, "messages", b"")))
    except ValidationError as error:
        raise CallRefused(f"messages: {first_problem(error)}") from error
    if not messages:
        raise CallRefused("messages is an empty list: it needs at least one turn")
    return messages


def _sampling(values: dict[str, np.ndarray]) -> Sampling:
    """The sampling parameters. Without any, decoding is greedy, as in TensorRT-LLM."""
    samples = any(f"sampling_param_{name}" in values for name in ("top_p", "top_k"))
    wanted = {
        "max_tokens": _scalar(values, "sampling_param_max_tokens", DEFAULT_MAX_TOKENS),
        "temperature": _decimal(
            _scalar(values, "sampling_param_temperature", 1.0 if samples else 0.0)
        ),
        "top_p": _decimal(_scalar(values, "sampling_param_top_p", 1.0)),
    }
    try:
        return Sampling(**wanted)
    except ValidationError as error:
        raise CallRefused(f"sampling_param_{first_problem(error)}") from error


def _decimal(value: float) -> float:
    """The decimal that the client meant: a float32 turns 0.9 into 0.89999998."""
    return float(np.format_float_positional(np.float32(value), unique=True))


def _stop(values: dict[str, np.ndarray]) -> tuple[str, ...]:
    found = tuple(
        _text("sampling_param_stop", each)
        for each in values.get("sampling_param_stop", np.array([])).flat
    )
    if "" in found or len(found) > MOST_STOP_STRINGS:
        raise CallRefused(
            f"sampling_param_stop = {json.dumps(found)}: at most {MOST_STOP_STRINGS}, none of them"
            " empty"
        )
    return found


def _scalar(values: dict[str, np.ndarray], name: str, default: Any) -> Any:
    if name not in values:
        return default
    if values[name].size != 1:
        raise CallRefused(f"{name} has shape {list(values[name].shape)}: it must be one value")
    return values[name].item()


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise CallRefused(f"{name} is not UTF-8: {error}") from error
