"""Adapters in training.

The base model's weights keep their own precision and are never changed, so a reference on the same
base model costs no second copy: it is the base model itself, or another adapter beside the trained
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from proofloop.config.run_file.training import Lora
from proofloop.engine.info import is_adapter
from proofloop.errors import ConfigError
from proofloop.store.model_folders import base_folder, model_name, whole_model
from proofloop_serving.adapters import add, attach, ends, has_adapters, use
from proofloop_trainer.checkpoint import reading_model
from proofloop_trainer.grpo.policy import load_model

TRAINED = "default"
REFERENCE = "reference"


def load_trained(
    folder: Path, lora: Lora | None, seed: int, temperature: float = 1.0
) -> PreTrainedModel:
    """Load a model to train: an adapter in the folder continues; else `lora` begins one, which
    changes nothing yet; else all weights train.

    Raises ConfigError.
    """
    if not is_adapter(folder):
        model = load_model(folder, temperature, None if lora else torch.float32)
        if lora:
            _begin(model, folder, lora, seed)
        return model
    model = load_model(base_folder(folder), temperature, dtype=None)
    _attach(model, folder, TRAINED)
    return model


def _begin(model: PreTrainedModel, folder: Path, lora: Lora, seed: int) -> None:
    """Add a new adapter: A is random, B is 0."""
    targets = list(lora.targets) or "all-linear"
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            add(model, config, TRAINED)
        except ValueError as error:
            problem = " ".join(str(error).split())
            raise ConfigError(f"[lora] targets = {targets!r}: {problem}", _hint(model)) from error
    model.peft_config[TRAINED].base_model_name_or_path = model_name(folder)


def _attach(model: PreTrainedModel, folder: Path, name: str) -> None:
    with reading_model(folder):
        attach(model, folder, name)


def _hint(model: PreTrainedModel) -> str:
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module not in ends(model)
    }
    return f"choose among {', '.join(sorted(names))}; or leave targets out"


def trained_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The weights that a checkpoint stores, by name: the trained adapter's, or all."""
    for name, weight in model.state_dict().items():
        if not has_adapters(model) or f".{TRAINED}." in name:
            yield name, weight


def attach_reference(model: PreTrainedModel, trained: Path, reference: Path) -> bool:
    """Make the model its own reference if both have the same base model: False if they have not."""
    if not has_adapters(model) or _base(trained) != _base(reference):
        return False
    if is_adapter(reference):
        _attach(model, reference, REFERENCE)
        use(model, TRAINED)
    return True


def _base(folder: Path) -> Path:
    return whole_model(folder).resolve()


@contextmanager
def as_reference(model: PreTrainedModel) -> Iterator[None]:
    """Let a model that is its own reference (`attach_reference`) compute as the reference.

    PEFT would mark the trained weights as frozen meanwhile. FSDP2 prepares weights at their first
    pass, which is this one, and could then not train them in 16 bits.
    """
    trains = [weight.requires_grad for weight in model.parameters()]
    use(model, REFERENCE if REFERENCE in model.peft_config else "")
    for weight, is_trained in zip(model.parameters(), trains, strict=True):
        weight.requires_grad_(is_trained)
    try:
        yield
    finally:
        use(model, TRAINED)
