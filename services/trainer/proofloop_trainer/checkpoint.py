"""Checkpoints: folders in Hugging Face format with the optimizer's state and a manifest of digests.

`manifest.json` is written last and atomically: a folder without it is not a checkpoint. Nothing is
pickled. No random state is stored, since each step derives its randomness from the seed and the
step number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import split_torch_state_dict_into_shards
from pydantic import Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import OutOfMemoryError, Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proofloop.errors import ConfigError, CorruptObject, ProofloopError
from proofloop.schema.records import ModelRole, Record
from proofloop.schema.validation import first_problem
from proofloop.store.model_folders import FILE_NAME, MANIFEST
from proofloop_serving import adapters
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.ranks import shard_like

WEIGHTS = ("model*.safetensors", adapters.WEIGHTS)
OPTIMIZER = "optimizer{suffix}.safetensors"
SHARD_BYTES = 2 * 10**9
"""The approximate maximum size of a model file: each file is written to the store as one object."""


@contextmanager
def reading_model(folder: Path) -> Iterator[None]:
    """Raise ConfigError that names the folder if the block cannot read the model there. A lack of
    memory stays as it is.
    """
    try:
        yield
    except (ProofloopError, MemoryError, OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file can make the loaders raise anything
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"the model in {folder} cannot be loaded: {problem}",
            "give a complete folder in Hugging Face format, with weights in safetensors files",
        ) from error


class FileEntry(Record):
    """One file of a checkpoint."""

    name: str = Field(pattern=FILE_NAME)
    size: int
    sha256: str


class Manifest(Record):
    """The origin and the files of a checkpoint.

    `version` consists of the step and the first digits of the weights' digest. `reference_digest`
    is the digest of the reference weights in the KL term.
    """

    schema_version: int = 1
    version: str
    parent_version: str | None = None
    role: ModelRole | None = None
    step: int
    settings: GrpoSettings = GrpoSettings()
    reference_digest: str | None = None
    files: tuple[FileEntry, ...]


def write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    steps: int,
    **origin: Any,
) -> Manifest:
    """Write a model in training to `folder`. Safe to repeat after a failure.

    `weights` and `optimizer` are complete tensors by name; `origin` are further fields of the
    manifest.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    save_model(folder, model, tokenizer, weights)
    _save_optimizer(optimizer, folder)
    return write_model_manifest(folder, steps, **origin)


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor],
) -> None:
    """Write the trained weights, complete tensors by name, with the tokenizer: a model in Hugging
    Face format, or an adapter in PEFT's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapters.has_adapters(model):
        adapters.save(model, weights, folder)
    else:
        model.save_pretrained(folder, state_dict=dict(weights), max_shard_size=SHARD_BYTES)
    tokenizer.save_pretrained(folder)


def _save_optimizer(tensors: Mapping[str, Tensor], folder: Path) -> None:
    cut = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern=OPTIMIZER, max_shard_size=SHARD_BYTES
    )
    for file, names in cut.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / file)


def optimizer_files(folder: Path) -> list[Path]:
    """The files with the optimizer's state in a checkpoint: one, or several for a large model."""
    return sorted(folder.glob(OPTIMIZER.format(suffix="*")))


def write_model_manifest(folder: Path, steps: int, **origin: Any) -> Manifest:
    """Write the manifest of a model folder, so that it can be served; `origin` are further fields
    of the manifest.
    """
    files = tuple(_entry(path) for path in sorted(folder.iterdir()) if path.is_file())
    digest = _combined([file.sha256 for file in files if _has_weights(file.name)])
    manifest = Manifest(version=f"{steps:06d}-{digest[:12]}", step=steps, files=files, **origin)
    _write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _entry(path: Path) -> FileEntry:
    return FileEntry(name=path.name, size=path.stat().st_size, sha256=file_digest(path))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """One digest of all weight files in a model folder; other files do not count."""
    files = sorted(path for path in folder.iterdir() if _has_weights(path.name))
    return _combined([file_digest(path) for path in files])


def _has_weights(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in WEIGHTS)


def _combined(digests: Sequence[str]) -> str:
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def has_manifest(folder: Path) -> bool:
    """Whether the folder is a complete checkpoint."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest without checking its files. Raises ConfigError if it is missing,
    CorruptObject if damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not a checkpoint: it has no {MANIFEST}",
            "name a completely written checkpoint",
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptObject(f"{path} is not a valid manifest: {first_problem(error)}") from error


def verify_checkpoint(folder: Path) -> Manifest:
    """Compare all files with the manifest and return it. Raises ConfigError or CorruptObject."""
    manifest = read_manifest(folder)
    for entry in manifest.files:
        _verify(Path(folder), entry)
    return manifest


def _verify(folder: Path, expected: FileEntry) -> None:
    path = folder / expected.name
    if not path.is_file():
        raise CorruptObject(
            f"{path} is missing: expected {expected.size} bytes, sha256 {expected.sha256}"
        )
    found = _entry(path)
    if found != expected:
        raise CorruptObject(
            f"{path} has changed: expected {expected.size} bytes, sha256 {expected.sha256}; "
            f"found {found.size} bytes, sha256 {found.sha256}"
        )


def check_reference(manifest: Manifest, reference_folder: Path | None) -> None:
    """Raise ConfigError unless `reference_folder` holds the reference model that the checkpoint was
    trained with.
    """
    if manifest.reference_digest is None:
        return
    hint = f"give the folder whose weights have sha256 {manifest.reference_digest}"
    if reference_folder is None:
        raise ConfigError(
            "this checkpoint was trained with a KL term, but no reference model is given", hint
        )
    if (found := weights_digest(reference_folder)) != manifest.reference_digest:
        raise ConfigError(
            f"{reference_folder} is not the checkpoint's reference model: its weights have sha256"
            f" {found}",
            hint,
        )


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's state of each parameter, under the parameter's name."""
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}/{key}", value


def load_optimizer(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Give each parameter the optimizer state saved under its name."""
    parameters = dict(model.named_parameters())
    for path in optimizer_files(Path(folder)):
        with safe_open(path, "pt") as file:
            for entry in file.keys():  # noqa: SIM118 - it is not a dictionary
                name, key = entry.rsplit("/", 1)
                parameter = parameters[name]
                tensor = file.get_tensor(entry)
                # Adam keeps its step counter on the CPU and its moments on the device of the
                # weights.
                optimizer.state[parameter][key] = (
                    tensor if key == "step" else shard_like(tensor, parameter)
                )
