"""A model folder with missing or damaged files is named, and nothing trains from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from proofloop.errors import ConfigError, ProofloopError
from proofloop_trainer.export import dtype_of
from proofloop_trainer.fine_tuning.encoding import Encoder
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.policy import load_model
from tests.unit.trainer.grpo_examples import ONE_UPDATE, save_tiny_model

LOST = "model.layers.1.mlp.down_proj.weight"


def without_a_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights[LOST]
    save_file(weights, file, metadata={"format": "pt"})


def with_pickled_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_half_a_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (without_a_weight, f"lacks 1 weights: {LOST}"),
        (with_pickled_weights, "no file named model.safetensors"),
        (with_half_a_file, "SafetensorError"),
    ],
)
def test_no_weight_is_random_or_damaged(
    damage: Callable[[Path], None], problem: str, tmp_path: Path
):
    damage(save_tiny_model(tmp_path))
    with pytest.raises(ConfigError, match=problem) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    (save_tiny_model(tmp_path) / "tokenizer.json").unlink()
    for read in (Encoder, lambda folder: GrpoLearner(folder, ONE_UPDATE)):
        with pytest.raises(ConfigError, match=f"the model in {tmp_path} cannot be loaded"):
            read(tmp_path)


def test_a_damaged_configuration_is_named(tmp_path: Path):
    (save_tiny_model(tmp_path) / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=f"the model in {tmp_path} cannot be loaded"):
        dtype_of(tmp_path)


def test_a_lack_of_memory_does_not_blame_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    save_tiny_model(tmp_path)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(ProofloopError, match=r"opening .*allocate 2 GiB\. To reduce memory"):
        GrpoLearner(tmp_path, ONE_UPDATE)
