"""Load model versions from local folders, and keep the last few."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from proofloop.engine.base import ChatMessage
from proofloop.errors import EngineError, NotFound, StoreError

MODELS_KEPT = 4

Resolve = Callable[[str], Path]


@dataclass(frozen=True)
class LoadedModel:
    """A model version ready to be sampled; `max_length` counts prompt and answer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    max_length: int

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return tuple(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))


class ModelShelf:
    """Model versions by name; `resolve` says in which folder a version lies. For one thread."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()

    def get(self, name: str) -> LoadedModel:
        """Raises EngineError: worth a retry only where the store is away."""
        if name not in self._models:
            self._models[name] = load_model(self._find(name))
        self._models.move_to_end(name)
        while len(self._models) > MODELS_KEPT:
            self._models.popitem(last=False)
        return self._models[name]

    def _find(self, name: str) -> Path:
        try:
            return self._resolve(name)
        except StoreError as error:
            is_away = not isinstance(error, NotFound)
            raise EngineError(f"model {name!r} cannot be fetched: {error}", retryable=is_away) from error


def load_model(folder: Path) -> LoadedModel:
    """Load a Hugging Face folder, on the GPU if there is one; EngineError if it is missing, corrupt or incomplete."""
    if not (folder / "config.json").is_file():
        raise EngineError(f"{folder} is no model folder: it has no config.json", retryable=False)
    disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype="auto", output_loading_info=True
        )
    except Exception as error:  # a corrupt file can make the loaders raise anything
        raise EngineError(f"model folder {folder} cannot be loaded: {error}", retryable=False) from error
    if report["missing_keys"]:
        raise EngineError(f"model folder {folder} lacks weights: {sorted(report['missing_keys'])[:3]}", retryable=False)
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return LoadedModel(model, tokenizer, _eos_ids(model, tokenizer), _max_length(model))


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """A chat model may end with another token than its tokenizer says: take both."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*named, tokenizer.eos_token_id) if token is not None)


def _max_length(model: PreTrainedModel) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)
