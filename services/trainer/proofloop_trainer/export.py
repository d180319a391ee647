"""A model to serve, made of a checkpoint to go on from: without the optimizer's state, in the precision that serves.

Weights are trained and kept in 32 bits. A model that began in 16 is served in 16: see `dtype_of`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from proofloop_trainer.checkpoint import (
    MANIFEST,
    SHARD_BYTES,
    Manifest,
    optimizer_files,
    read_manifest,
    write_model_manifest,
)

WEIGHTS_WITH_INDEX = "model*.safetensors*"
"""One file, or several with their index."""


def dtype_of(folder: Path) -> torch.dtype:
    """What the weights of a model are, as its configuration says."""
    return AutoConfig.from_pretrained(folder).dtype or torch.float32


def export_model(checkpoint: Path, folder: Path, dtype: torch.dtype) -> Manifest:
    """Copy what a server needs to a new folder, manifest last."""
    made = read_manifest(checkpoint)
    copy_model(checkpoint, folder, dtype)
    return write_model_manifest(folder, made.step, **made.model_dump(exclude={"version", "step", "files"}))


def copy_model(whole: Path, folder: Path, dtype: torch.dtype) -> None:
    """Copy a model whose weights are of 32 bits; the copy's are of `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    left_out = {MANIFEST, *(path.name for path in optimizer_files(whole))}
    if dtype != torch.float32:
        left_out |= {path.name for path in whole.glob(WEIGHTS_WITH_INDEX)}
    for path in whole.iterdir():
        if path.is_file() and path.name not in left_out:
            shutil.copyfile(path, folder / path.name)
    if dtype != torch.float32:  # by transformers: some weights must stay in 32 bits, which their class says
        AutoModelForCausalLM.from_pretrained(whole, dtype=dtype, use_safetensors=True).save_pretrained(
            folder, max_shard_size=SHARD_BYTES
        )
