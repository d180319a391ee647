"""From a checkpoint to the next version: what is kept to go on from, and what serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from proofloop.errors import CorruptObject
from proofloop.schema import keys
from proofloop.store import LocalStore
from proofloop.store.model_folders import MANIFEST, verify_version, version_folder
from proofloop_serving.loading import load_model
from proofloop_trainer.checkpoint import verify_checkpoint
from proofloop_trainer.steps import (
    drop_older,
    exact_weights,
    keep_weights,
    open_learner,
    publish_made,
    take_step,
)
from tests.unit.trainer.grpo_examples import ONE_UPDATE, batch, ragged_samples, save_tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_versions_are_served_in_the_precision_of_the_first_and_trained_in_32_bits(
    tmp_path: Path, dtype: torch.dtype
):
    store, first = LocalStore(tmp_path / "store"), save_tiny_model(tmp_path / "first", dtype=dtype)
    for step in range(2):  # the second from the first one's checkpoint
        learner = open_learner(store, "run", "verifier", step, ONE_UPDATE, first, first)
        version = take_step(
            store, "run", "verifier", learner, batch(*ragged_samples(8, seed=step)), first
        ).version
        served = weights(store, version)
        kept = weights(store, keys.checkpoint("run", "verifier", step + 1))
        assert {weight.dtype for weight in kept.values()} == {torch.float32}
        assert {weight.dtype for weight in served.values()} == {dtype}
        assert all(torch.equal(served[name], weight.to(dtype)) for name, weight in kept.items())
        assert load_model(version_folder(store, tmp_path, version)).model.dtype == dtype
        verify_version(store, version)
        assert verify_checkpoint(version_folder(store, tmp_path, version)).step == step + 1


def test_a_step_goes_on_with_smaller_passes_and_only_the_newest_versions_are_left(tmp_path: Path):
    store, first = LocalStore(tmp_path / "store"), save_tiny_model(tmp_path / "first")
    for step, tokens in enumerate((4096, 40)):
        settings = ONE_UPDATE.model_copy(update={"tokens_per_pass": tokens})
        learner = open_learner(store, "run", "verifier", step, settings, first, first)
        assert (learner.steps, learner.settings.tokens_per_pass) == (step, tokens)
        version = take_step(
            store, "run", "verifier", learner, batch(*ragged_samples(8, seed=step)), first
        ).version
    drop_older(store, version)
    for folder in (keys.models("run", "verifier"), keys.checkpoints("run", "verifier")):
        assert {keys.version_of(key)[-6:] for key in store.list(folder)} == {"000002"}


def test_the_last_step_keeps_its_weights_before_its_version_is_complete(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    first = save_tiny_model(tmp_path / "first", dtype=torch.bfloat16)
    kept, exists = keys.weights(keys.model("run", "verifier", 1)), store.exists
    manifest = f"{keys.model('run', 'verifier', 1)}/{MANIFEST}"
    learner = open_learner(store, "run", "verifier", 0, ONE_UPDATE, first, first)
    assert exact_weights(store, keys.model("run", "verifier", 1)) != kept

    class Watched(LocalStore):
        def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
            assert key != manifest or exists(f"{kept}/{MANIFEST}")
            return super().put_if_absent(key, data, durable=durable)

    watched, samples = Watched(store.root), batch(*ragged_samples(8))
    version = take_step(watched, "run", "verifier", learner, samples, first, is_last=True).version
    assert exact_weights(store, version) == kept
    assert exact_weights(store, "nano-base") == "nano-base"
    assert {weight.dtype for weight in weights(store, kept).values()} == {torch.float32}


def test_weights_before_rounding_are_kept_whatever_was_killed_when(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    first = save_tiny_model(tmp_path / "first", dtype=torch.bfloat16)
    learner = open_learner(store, "run", "verifier", 0, ONE_UPDATE, first, first)
    version = take_step(store, "run", "verifier", learner, batch(*ragged_samples(8)), first).version
    kept, checkpoint = keys.weights(version), keys.checkpoint("run", "verifier", 1)
    expected = weights(store, checkpoint)
    assert any((weight != weight.bfloat16()).any() for weight in expected.values())
    # What a killed process left.
    store.put_if_absent(f"{kept}/0123456789ab/model.safetensors", b"half of a file")
    folder = version_folder(store, tmp_path, checkpoint)
    for _ in range(2):
        keep_weights(store, version, folder, torch.bfloat16)
        verify_version(store, kept)
        store.delete_prefix(f"{checkpoint}/")
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(store, kept).items())


def test_a_damaged_checkpoint_gives_no_weights_to_go_on_from(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    first = save_tiny_model(tmp_path / "first", dtype=torch.bfloat16)
    learner = open_learner(store, "run", "verifier", 0, ONE_UPDATE, first, first)
    version = take_step(store, "run", "verifier", learner, batch(*ragged_samples(8)), first).version
    checkpoint = version_folder(store, tmp_path, keys.checkpoint("run", "verifier", 1))
    file = checkpoint / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptObject, match=r"model\.safetensors has changed"):
        keep_weights(store, version, checkpoint, torch.bfloat16)


def test_a_model_that_was_made_is_not_made_again_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = LocalStore(tmp_path / "store")
    made = list[Path]()
    version = keys.model("run", "1-consolidate", 9)

    def make(folder: Path) -> None:
        made.append(save_tiny_model(folder, seed=len(made)))

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        # Killed between weights and version.
        patch.setattr("proofloop_trainer.steps.copy_model", lambda *_: 1 / 0)
        publish_made(store, version, 9, make, torch.bfloat16)
    publish_made(store, version, 9, make, torch.bfloat16)
    assert len(made) == 1
    served = weights(store, version)
    for name, weight in weights(store, keys.weights(version)).items():
        assert torch.equal(served[name], weight.bfloat16())
    verify_version(store, version)


def weights(store: LocalStore, version: str) -> dict[str, Tensor]:
    return load_file(version_folder(store, store.root, version) / "model.safetensors")
