"""Loads a model version from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from proofloop.engine.base import ChatMessage
from proofloop.errors import EngineError
from proofloop_serving.calls import encode


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model version; `max_length` is the context length in tokens, prompt and answer
    together.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    max_length: int

    def encode(self, prompt: str | Sequence[ChatMessage]) -> tuple[int, ...]:
        """The token ids of a prompt: raw text unchanged, messages in the model's chat template.
        Raises CallRefused.
        """
        return tuple(encode(self.tokenizer, prompt))


def load_model(folder: Path) -> LoadedModel:
    """Load a Hugging Face folder, on the GPU with the most room if there is one.

    Raises EngineError if it is missing, corrupt or incomplete, and OutOfMemoryError.
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
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype="auto", output_loading_info=True
        )
    except Exception as error:  # a corrupt file can make the loaders raise anything
        raise EngineError(
            f"model folder {folder} cannot be loaded: {error}", retryable=False
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise EngineError(
            f"weights are missing in model folder {folder}: {missing[:3]}", retryable=False
        )
    model.eval().to(_device())
    return LoadedModel(model, tokenizer, _eos_ids(model, tokenizer), _max_length(model))


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


def _max_length(model: PreTrainedModel) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)
