"""Makes the inputs of a Triton model: the messages if the model applies its own chat template, or a
prompt rendered from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.errors import ConfigError, EngineError

Inputs = dict[str, tuple[str, str | bool | int | float]]
"""Triton type and value by name. Each input has one element."""

SEED_BITS = 63


class ChatTemplate:
    """A Jinja file that renders one prompt from the messages. It runs in a sandbox. Raises
    ConfigError for an invalid file.
    """

    def __init__(self, path: Path, values: Mapping[str, object]) -> None:
        self._path, self._values = path, values
        try:
            environment = ImmutableSandboxedEnvironment(
                trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
            )
            environment.globals["raise_exception"] = _raise
            self._template = environment.from_string(path.read_text())
        except (OSError, TemplateError) as error:
            raise self._problem(error) from error

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """Raises EngineError."""
        spoken = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=spoken, add_generation_prompt=True, **self._values
            )
        except TemplateError as error:
            raise EngineError(self._problem(error).problem, retryable=False) from error

    def _problem(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"[engine] triton: chat_template = {str(self._path)!r} cannot be used: {error}",
            "use the chat template of the model on Hugging Face; set bos_token and the like in"
            " chat_template_values",
        )


def _raise(problem: str) -> None:
    """The function that chat templates call for an unknown role."""
    raise TemplateError(problem)


def message_inputs(messages: Sequence[ChatMessage], *, want_tokens: bool) -> Inputs:
    """The inputs for a model that applies its own chat template."""
    spoken = [{"role": message.role, "content": message.content} for message in messages]
    return {"messages": ("BYTES", json.dumps(spoken)), "return_tokens": ("BOOL", want_tokens)}


def common_inputs(request: GenerationRequest, *, streaming: bool) -> Inputs:
    """The inputs for every model. Without sampling parameters it would decode greedily and echo the
    prompt.
    """
    return {
        "streaming": ("BOOL", streaming),
        "sampling_param_max_tokens": ("INT32", request.sampling.max_tokens),
        "sampling_param_temperature": ("FP32", request.sampling.temperature),
        "sampling_param_top_p": ("FP32", request.sampling.top_p),
        "sampling_param_seed": ("UINT64", request.seed & ((1 << SEED_BITS) - 1)),
        "sampling_param_exclude_input_from_output": ("BOOL", True),
        "return_finish_reason": ("BOOL", True),
    }
