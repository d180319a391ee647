"""From a checkpoint to the next version: what is kept to go on from, and what serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from proofloop import keys
from proofloop.models import verify_version
from proofloop.store import LocalStore
from proofloop_serving.loading import load_model
from proofloop_trainer.checkpoint import verify_checkpoint
from proofloop_trainer.steps import drop_older, open_learner, take_step
from tests.unit.grpo_examples import ONE_UPDATE, batch, ragged_samples, save_tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_versions_are_served_in_the_precision_of_the_first_and_trained_in_32_bits(tmp_path: Path, dtype: torch.dtype):
    store, first = LocalStore(tmp_path / "store"), save_tiny_model(tmp_path / "first", dtype=dtype)
    for step in range(2):  # the second from the first one's checkpoint
        learner = open_learner(store, "run", "verifier", step, ONE_UPDATE, first, first)
        version = take_step(store, "run", "verifier", learner, batch(*ragged_samples(8, seed=step)), first).version
        served = weights(store, version)
        kept = weights(store, keys.checkpoint("run", "verifier", step + 1))
        assert {weight.dtype for weight in kept.values()} == {torch.float32}
        assert {weight.dtype for weight in served.values()} == {dtype}
        assert all(torch.equal(served[name], weight.to(dtype)) for name, weight in kept.items())
        assert load_model(store.path(version)).model.dtype == dtype
        verify_version(store, version)
        assert verify_checkpoint(store.path(version)).step == step + 1


def test_a_step_goes_on_with_smaller_passes_and_only_the_newest_versions_are_left(tmp_path: Path):
    store, first = LocalStore(tmp_path / "store"), save_tiny_model(tmp_path / "first")
    for step, tokens in enumerate((4096, 40)):
        settings = ONE_UPDATE.model_copy(update={"tokens_per_pass": tokens})
        learner = open_learner(store, "run", "verifier", step, settings, first, first)
        assert (learner.steps, learner.settings.tokens_per_pass) == (step, tokens)
        version = take_step(store, "run", "verifier", learner, batch(*ragged_samples(8, seed=step)), first).version
    drop_older(store, version)
    for folder in (keys.models("run", "verifier"), keys.checkpoints("run", "verifier")):
        assert {key.split("/")[-2] for key in store.list(folder)} == {"000002"}


def weights(store: LocalStore, version: str) -> dict[str, Tensor]:
    return load_file(store.path(f"{version}/model.safetensors"))
