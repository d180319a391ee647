"""Loads a model version from a local folder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import structlog
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from proofloop.engine.base import ChatMessage
from proofloop.errors import EngineError
from proofloop_serving.adapters import attach, remove, use
from proofloop_serving.calls import encode

log = structlog.get_logger()

_numbers = count()
"""The numbers of loaded adapters: PEFT's names of adapters cannot be versions, which may have dots.
"""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model version; `max_length` is the context length in tokens, prompt and answer
    together.

    A version that is an adapter has its `base`, whose model it shares, and its name there.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    max_length: int
    base: LoadedModel | None = None
    adapter: str = ""

    def encode(self, prompt: str | Sequence[ChatMessage]) -> tuple[int, ...]:
        """The token ids of a prompt: raw text unchanged, messages in the model's chat template.
        Raises CallRefused.
        """
        return tuple(encode(self.tokenizer, prompt))

    def activate(self) -> None:
        """Let the model compute as this version: call it before each pass."""
        use(self.model, self.adapter)

    def unload(self) -> None:
        """Remove an adapter from its base model."""
        remove(self.model, self.adapter)


def load_adapter(base: LoadedModel, folder: Path) -> LoadedModel:
    """Load an adapter beside the others of its base model. Raises EngineError if it is damaged or
    does not fit.
    """
    name = f"adapter_{next(_numbers)}"
    try:
        attach(base.model, folder, name)
        tokenizer = base.tokenizer
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = _tokenizer(folder)
    except Exception as error:  # a corrupt file can make the loaders raise anything
        remove(base.model, name)
        problem = " ".join(str(error).split())
        raise EngineError(
            f"the adapter in {folder} cannot be loaded: {problem}", retryable=False
        ) from error
    return replace(base, tokenizer=tokenizer, base=base, adapter=name)


def load_model(folder: Path) -> LoadedModel:
    """Load a Hugging Face folder, on the GPU with the most room if there is one. Warns if the
    context is shorter than the configuration's.

    Raises EngineError if it is missing, corrupt, incomplete, not in safetensors, needs code of its
    own, or has an architecture that the decoder cannot continue; and OutOfMemoryError.
    """
    if not (folder / "config.json").is_file():
        raise EngineError(
            f"{folder} is not a model folder: it has no config.json (to download a model from the"
            " Hugging Face hub:"
            " hf download OWNER/NAME --local-dir FOLDER)",
            retryable=False,
        )
    disable_progress_bar()
    try:
        tokenizer = _tokenizer(folder)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype="auto",
            output_loading_info=True,
        )
    except Exception as error:  # a corrupt file can make the loaders raise anything
        raise EngineError(
            f"model folder {folder} cannot be loaded: {error}", retryable=False
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise EngineError(
            f"weights are missing in model folder {folder}: {missing[:3]}", retryable=False
        )
    _check_keeps_cache(model, folder)
    model.eval().to(_device())
    max_length, positions = context_length(model.config), _positions(model.config)
    if max_length < positions:
        log.warning(
            "context_limited", model=str(folder), reason="LongRoPE", tokens=max_length, of=positions
        )
    return LoadedModel(model, tokenizer, _eos_ids(model, tokenizer), max_length)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return found


def _check_keeps_cache(model: PreTrainedModel, folder: Path) -> None:
    """Raise EngineError for a model such as Mamba, which would ignore the cache and its past."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise EngineError(
            f"{type(model).__name__} in {folder} does not take past_key_values, which the decoder"
            " needs (serve it by another server and the engine openai)",
            retryable=False,
        )


def _device() -> torch.device:
    """The GPU with the most free memory, so that models in separate processes spread over the GPUs;
    else the CPU.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpus = range(torch.cuda.device_count())
    return torch.device("cuda", max(gpus, key=lambda gpu: torch.cuda.mem_get_info(gpu)[0]))


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The end tokens of model and tokenizer: in a chat model they may differ."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*named, tokenizer.eos_token_id) if token is not None)


def context_length(config: PretrainedConfig) -> int:
    """The most tokens of prompt and answer together.

    With LongRoPE it is the original context. One longer row would change the rotary factors of all
    rows in its pass, and the trainer's passes have other rows than the sampler's.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    of_layer_types = [each for each in rope.values() if isinstance(each, dict)]
    original = [
        int(each["original_max_position_embeddings"])
        for each in of_layer_types or [rope]
        if each.get("rope_type") == "longrope"
    ]
    return min([_positions(config), *original])


def _positions(config: PretrainedConfig) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)
