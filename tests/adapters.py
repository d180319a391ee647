"""Adapters with random weights, for the tests of training and serving."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer

from proofloop.config.run_file.training import Lora
from proofloop_trainer.adapters import load_trained, trained_weights
from proofloop_trainer.checkpoint import save_model


def save_adapter(
    folder: Path, base: Path, seed: int, rank: int = 4, targets: tuple[str, ...] = ()
) -> Path:
    """A LoRA of the base model whose B is not 0, with the base's tokenizer."""
    model = load_trained(base, Lora(rank=rank, targets=targets), seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    weights = dict(trained_weights(model))
    save_model(folder, model, AutoTokenizer.from_pretrained(base), weights)
    return folder
