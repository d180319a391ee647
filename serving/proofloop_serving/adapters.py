"""LoRA adapters by PEFT, injected into a transformers model, which stays a plain model.

An adapter is never merged: the trainer and the engine compute the same sums. Its weights stay in 32
bits, whatever the precision of the base model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftType, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the names of the weights in its files."""


def attach(model: PreTrainedModel, folder: Path, name: str) -> None:
    """Add the adapter in a folder to its base model. Raises ValueError or what PEFT raises if it is
    damaged, or not one that can be trained here.
    """
    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.peft_type != PeftType.LORA or config.modules_to_save:
        raise ValueError("only LoRA adapters are supported, without modules_to_save")
    base = config.base_model_name_or_path
    add(model, config, name)
    config.base_model_name_or_path = base
    weights = load_file(folder / WEIGHTS)
    report: Any = set_peft_model_state_dict(
        model,
        {key.removeprefix(PREFIX): weight for key, weight in weights.items()},
        adapter_name=name,
    )
    missing = [key for key in report.missing_keys if f".{name}." in key]
    if wrong := [*report.unexpected_keys, *missing]:
        raise ValueError(f"adapter and base model differ in {len(wrong)} weights: {wrong[0]}")


def add(model: PreTrainedModel, config: Any, name: str) -> None:
    """Add an adapter with new weights, and make it the active one. Raises ValueError."""
    with warnings.catch_warnings():
        # for a second adapter, and for experts, which have none
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        warnings.filterwarnings("ignore", "The following .*_pattern keys")
        model.add_adapter(config, adapter_name=name)
    # A set is written in any order, and the same checkpoint must have the same bytes.
    config.target_modules = sorted(config.target_modules)
    if any(isinstance(layer, BaseTunerLayer) for layer in ends(model)):
        raise ValueError("the embeddings and the output layer cannot have an adapter")
    for weight_name, weight in model.named_parameters():
        if f".{name}." in weight_name:
            weight.data = weight.data.float()


def remove(model: PreTrainedModel, name: str) -> None:
    """Remove an adapter, also one that was only half added."""
    if name in getattr(model, "peft_config", {}):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted")
            model.delete_adapter(name)


def save(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the active adapter to an existing folder; `weights` are its weights by name."""
    (name,) = model.active_adapters()
    # Without this argument, PEFT looks for the base model on the Hugging Face hub.
    found = get_peft_model_state_dict(
        model, state_dict=dict(weights), adapter_name=name, save_embedding_layers=False
    )
    save_file({f"{PREFIX}{key}": weight for key, weight in found.items()}, folder / WEIGHTS)
    model.peft_config[name].save_pretrained(str(folder))


def ends(model: Any) -> tuple[nn.Module | None, nn.Module | None]:
    """The embeddings and the output layer."""
    return model.get_input_embeddings(), model.get_output_embeddings()


def has_adapters(model: nn.Module) -> bool:
    """Whether an adapter was added to the model."""
    return bool(getattr(model, "peft_config", None))


def use(model: PreTrainedModel, name: str) -> None:
    """Compute with this adapter from now on, or with none if the name is empty."""
    if not has_adapters(model):
        return
    layer = next(each for each in model.modules() if isinstance(each, BaseTunerLayer))
    is_off = layer.disable_adapters
    if not name and not is_off:
        model.disable_adapters()
    elif name and (is_off or layer.active_adapters != [name]):
        model.enable_adapters()
        model.set_adapter(name)
