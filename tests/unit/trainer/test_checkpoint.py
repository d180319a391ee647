"""A checkpoint goes on as if never stopped, and says when it is not what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from proofloop.errors import ConfigError, CorruptObject
from proofloop_trainer.checkpoint import Manifest, read_manifest, verify_checkpoint
from proofloop_trainer.export import export_model
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings
from tests.unit.trainer.grpo_examples import batch, ragged_samples, save_tiny_model

pytestmark = pytest.mark.filterwarnings("error")

SETTINGS = GrpoSettings(minibatch_sequences=8, kl_coefficient=0.1)


@pytest.fixture(scope="module")
def trained(model_folder) -> GrpoLearner:
    learner = GrpoLearner(model_folder, SETTINGS)
    learner.step(batch(*ragged_samples(16)))
    return learner


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    trained.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def digest_of(manifest: Manifest, name: str) -> str:
    return next(entry.sha256 for entry in manifest.files if entry.name == name)


def test_restored_learner_takes_the_steps_of_the_uninterrupted_one(model_folder, tmp_path):
    steps = [batch(*ragged_samples(24, seed=step)) for step in range(4)]
    uninterrupted = GrpoLearner(model_folder, SETTINGS)
    expected = [uninterrupted.step(one).loss for one in steps]

    interrupted = GrpoLearner(model_folder, SETTINGS)
    losses = [interrupted.step(one).loss for one in steps[:2]]
    interrupted.save(tmp_path / "checkpoint")
    restored = GrpoLearner.restore(tmp_path / "checkpoint", model_folder)
    losses += [restored.step(one).loss for one in steps[2:]]
    again, through = (
        learner.save(tmp_path / name)
        for name, learner in (("restored", restored), ("through", uninterrupted))
    )

    assert losses == expected
    assert again == through
    for one, other in zip(
        restored.model.parameters(), uninterrupted.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_large_model_is_kept_in_several_files_and_goes_on_with_the_same_step(
    model_folder, tmp_path, monkeypatch
):
    for module in ("checkpoint", "export"):
        monkeypatch.setattr(f"proofloop_trainer.{module}.SHARD_BYTES", 10_000)
    through = GrpoLearner(model_folder, SETTINGS)
    through.step(batch(*ragged_samples(16)))
    manifest = through.save(tmp_path / "cut")
    for kind in ("model", "optimizer"):
        assert sum(file.name.startswith(f"{kind}-0000") for file in manifest.files) > 3
    assert max(file.size for file in manifest.files if file.name.endswith(".safetensors")) < 12_000
    export_model(tmp_path / "cut", tmp_path / "served", torch.bfloat16)
    served = AutoModelForCausalLM.from_pretrained(tmp_path / "served")
    assert torch.equal(served.lm_head.weight, through.model.lm_head.weight.bfloat16())
    assert not list((tmp_path / "served").glob("optimizer*"))
    again = GrpoLearner.restore(tmp_path / "cut", model_folder)
    steps = [learner.step(batch(*ragged_samples(16, seed=1))).loss for learner in (through, again)]
    assert steps[0] == steps[1]
    for one, other in zip(again.model.parameters(), through.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_manifest_says_what_the_checkpoint_is(trained, checkpoint):
    manifest = verify_checkpoint(checkpoint)
    assert manifest == read_manifest(checkpoint)
    assert (manifest.role, manifest.step, manifest.settings) == ("verifier", 1, SETTINGS)
    assert manifest.parent_version is None
    assert manifest.version == f"000001-{digest_of(manifest, 'model.safetensors')[:12]}"
    assert {entry.name for entry in manifest.files} | {"manifest.json"} == {
        path.name for path in checkpoint.iterdir()
    }


def test_checkpoint_is_a_plain_hugging_face_folder(trained, checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert torch.equal(model.lm_head.weight, trained.model.lm_head.weight)
    assert model.config.use_cache
    assert AutoTokenizer.from_pretrained(checkpoint).pad_token == "<pad>"


def test_nothing_in_a_checkpoint_is_pickled(checkpoint):
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}


def test_model_trained_from_a_checkpoint_names_it_as_its_parent(checkpoint, tmp_path):
    child = GrpoLearner(checkpoint, SETTINGS)
    assert child.save(tmp_path / "child").parent_version == read_manifest(checkpoint).version


def test_saving_twice_gives_the_same_checkpoint(trained, checkpoint):
    first = read_manifest(checkpoint)
    assert trained.save(checkpoint) == first


def test_interrupted_save_leaves_no_checkpoint(trained, checkpoint, monkeypatch):
    monkeypatch.setattr(trained.tokenizer, "save_pretrained", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained.save(checkpoint)
    with pytest.raises(ConfigError, match="not a checkpoint"):
        verify_checkpoint(checkpoint)


def test_changed_file_is_named_with_both_digests(checkpoint):
    expected = digest_of(read_manifest(checkpoint), "optimizer.safetensors")
    data = bytearray((checkpoint / "optimizer.safetensors").read_bytes())
    data[-1] ^= 1
    (checkpoint / "optimizer.safetensors").write_bytes(data)
    with pytest.raises(
        CorruptObject, match=rf"optimizer\.safetensors has changed: .*{expected}; found .* sha256 "
    ):
        GrpoLearner.restore(checkpoint)


def test_missing_file_is_named(checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CorruptObject, match=r"tokenizer\.json is missing"):
        verify_checkpoint(checkpoint)


def test_manifest_cannot_point_outside_its_folder(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][0]["name"] = "../config.json"
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptObject, match="is not a valid manifest"):
        read_manifest(checkpoint)


def test_kl_term_needs_the_reference_it_was_trained_with(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="no reference model is given"):
        GrpoLearner.restore(checkpoint)
    with pytest.raises(ConfigError, match="is not the checkpoint's reference model"):
        GrpoLearner.restore(checkpoint, save_tiny_model(tmp_path / "other", seed=1))


def test_checkpoint_before_the_first_step_can_be_restored(model_folder, tmp_path):
    settings = GrpoSettings(kl_coefficient=0)
    GrpoLearner(model_folder, settings).save(tmp_path / "start")
    assert GrpoLearner.restore(tmp_path / "start").step(batch(*ragged_samples(8))).step == 1
