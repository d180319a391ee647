"""Exports a checkpoint as a model to serve: without the optimizer's state and in the precision of
the start model.

Weights are trained and stored in 32 bits. A model that started in 16 bits is served in 16: see
`dtype_of`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from proofloop.engine.info import is_adapter
from proofloop.store.model_folders import MANIFEST
from proofloop_trainer.checkpoint import (
    SHARD_BYTES,
    Manifest,
    optimizer_files,
    read_manifest,
    reading_model,
    write_model_manifest,
)

WEIGHTS_WITH_INDEX = "model*.safetensors*"
"""The weights: one file, or several with an index."""


def dtype_of(folder: Path) -> torch.dtype:
    """The type of a model's weights according to its configuration; an adapter's are in 32 bits.
    Raises ConfigError.
    """
    if is_adapter(folder):
        return torch.float32
    with reading_model(folder):
        config = AutoConfig.from_pretrained(folder)
    return config.dtype or config.get_text_config().dtype or torch.float32


def export_model(checkpoint: Path, folder: Path, dtype: torch.dtype) -> Manifest:
    """Copy the files that a server needs to a new folder, manifest last."""
    made = read_manifest(checkpoint)
    copy_model(checkpoint, folder, dtype)
    return write_model_manifest(
        folder, made.step, **made.model_dump(exclude={"version", "step", "files"})
    )


def copy_model(whole: Path, folder: Path, dtype: torch.dtype) -> None:
    """Copy a model with 32-bit weights; the copy's weights have type `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    left_out = {MANIFEST, *(path.name for path in optimizer_files(whole))}
    if dtype != torch.float32:
        left_out |= {path.name for path in whole.glob(WEIGHTS_WITH_INDEX)}
    for path in whole.iterdir():
        if path.is_file() and path.name not in left_out:
            shutil.copyfile(path, folder / path.name)
    # Transformers knows which weights of a model class must stay in 32 bits.
    if dtype != torch.float32:
        AutoModelForCausalLM.from_pretrained(
            whole, dtype=dtype, use_safetensors=True
        ).save_pretrained(folder, max_shard_size=SHARD_BYTES)
