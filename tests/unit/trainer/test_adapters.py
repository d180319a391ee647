"""Adapters in training: what trains, what is stored, and what the reference is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from proofloop.config.run_file.training import Lora
from proofloop.engine.info import is_adapter
from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.store import LocalStore
from proofloop.store.model_folders import base_folder, version_folder
from proofloop_trainer.adapters import load_trained
from proofloop_trainer.fine_tuning.supervised import Schedule, fine_tune
from proofloop_trainer.grpo.batch import answers_to_train, by_length, collate
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.policy import load_model, score
from proofloop_trainer.steps import open_learner, take_step
from tests.unit.trainer.grpo_examples import (
    ONE_UPDATE,
    batch,
    changed,
    ragged_samples,
    save_tiny_model,
)

LORA = Lora(rank=4, alpha=8)
FAST = changed(ONE_UPDATE, learning_rate=1e-2)
ANSWERS = answers_to_train(ragged_samples(8), "train")
WITH_KL = changed(FAST, kl_coefficient=0.1)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def base(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return save_tiny_model(tmp_path / "base", dtype=request.param)


def logprobs(folder: Path) -> Tensor:
    """The log-probabilities of the answers by the model in a folder, adapter or whole."""
    is_whole = not is_adapter(folder)
    model = load_model(folder, dtype=None) if is_whole else load_trained(folder, None, 0)
    with torch.no_grad():
        return score(model, collate(by_length(ANSWERS))).logprobs_BT


def test_an_adapter_trains_in_32_bits_and_its_base_stays_as_it_is(base: Path, tmp_path: Path):
    before = load_file(base / "model.safetensors")
    with GrpoLearner(base, FAST, lora=LORA) as learner:
        report = learner.step(batch(*ragged_samples(8)))
        learner.save(tmp_path / "adapter")
        trained = {name for name, each in learner.model.named_parameters() if each.requires_grad}
        assert report.grad_norm > 0
        assert {name.split(".")[-3] for name in trained} == {"lora_A", "lora_B"}
        after = {
            name.replace(".base_layer", ""): each
            for name, each in learner.model.state_dict().items()
        }
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    assert len(saved) == len(trained) == 2 * 7 * 2
    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    assert base_folder(tmp_path / "adapter") == base
    assert not torch.equal(logprobs(tmp_path / "adapter"), logprobs(base))


def test_a_new_adapter_changes_nothing(base: Path, tmp_path: Path):
    with GrpoLearner(base, FAST, lora=LORA) as learner:
        learner.save(tmp_path / "adapter")
    assert torch.equal(logprobs(tmp_path / "adapter"), logprobs(base))


def test_a_restored_adapter_takes_the_steps_of_the_uninterrupted_one(base: Path, tmp_path: Path):
    first, second = (batch(*ragged_samples(8, seed=seed)) for seed in (0, 1))
    with GrpoLearner(base, WITH_KL, lora=LORA) as learner:
        learner.step(first)
        learner.save(tmp_path / "one")
        learner.step(second)
        learner.save(tmp_path / "two")
    with GrpoLearner.restore(tmp_path / "one", base) as restored:
        assert restored.reference is restored.model
        restored.step(second)
        restored.save(tmp_path / "again")
    for name in ("adapter_model.safetensors", "adapter_config.json", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_reference_on_the_same_base_needs_no_second_model(base: Path, tmp_path: Path):
    """Its log-probabilities are those of a model of its own, and the next step is the same."""
    with GrpoLearner(base, FAST, lora=LORA) as learner:
        learner.step(batch(*ragged_samples(8)))
        learner.save(tmp_path / "other")
    for reference in (base, tmp_path / "other"):
        with GrpoLearner(base, WITH_KL, reference, LORA) as learner:
            assert learner.reference is learner.model
            learner.step(batch(*ragged_samples(8, seed=3)))
            scored = learner._with_reference(ANSWERS)
            assert [name for name, each in learner.model.named_parameters() if each.requires_grad]
        expected = logprobs(reference)
        for row, answer in zip(expected, scored, strict=True):
            wanted = row[len(answer.prompt_ids_P) : answer.length]
            torch.testing.assert_close(answer.reference_logprobs_C, wanted)


def test_a_reference_on_another_base_is_a_model_of_its_own(tmp_path: Path):
    base, other = (save_tiny_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    with GrpoLearner(base, WITH_KL, other, LORA) as learner:
        assert learner.reference is not learner.model
        assert learner.step(batch(*ragged_samples(8))).kl > 0


def test_versions_are_adapters_and_the_next_stage_continues_them(base: Path, tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    versions = list[str]()
    for run in ("one", "two"):
        start = version_folder(store, tmp_path, versions[-1]) if versions else base
        lora = None if versions else LORA
        learner = open_learner(store, run, "verifier", 0, WITH_KL, start, start, lora)
        samples = batch(*ragged_samples(8, seed=len(versions)))
        taken = take_step(store, run, "verifier", learner, samples, start, is_last=True)
        versions.append(taken.version)
        assert taken.figures["kl"] == pytest.approx(0, abs=1e-6)
        folder = version_folder(store, tmp_path, taken.version)
        assert base_folder(folder) == base
        assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "tokenizer.json"}
        assert not any(path.name.startswith("optimizer") for path in folder.iterdir())
        assert not list(store.list(keys.all_weights(run)))
    assert not torch.equal(*(logprobs(version_folder(store, tmp_path, each)) for each in versions))


def test_supervised_steps_train_an_adapter_and_go_on_from_it(base: Path, tmp_path: Path):
    schedule = Schedule(epochs=4, batch=4, learning_rate=1e-2)
    fine_tune(base, tmp_path / "one", ANSWERS, schedule, 0, LORA)
    fine_tune(tmp_path / "one", tmp_path / "two", ANSWERS, schedule, 0)
    likely = [logprobs(folder).sum() for folder in (base, tmp_path / "one", tmp_path / "two")]
    assert likely == sorted(likely)
    assert base_folder(tmp_path / "two") == base


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (("lm_head",), "output layer"),
        (("embed_tokens",), "embeddings"),
        (("query",), "query"),
    ],
)
def test_matrices_that_cannot_have_an_adapter_are_refused(
    tmp_path: Path, targets: tuple[str, ...], problem: str
):
    base = save_tiny_model(tmp_path / "base")
    with pytest.raises(ConfigError, match=problem) as caught:
        GrpoLearner(base, FAST, lora=Lora(targets=targets))
    assert "down_proj, gate_proj, k_proj" in caught.value.hint
    assert "lm_head" not in caught.value.hint


def test_an_adapter_that_does_not_fit_its_base_is_refused(tmp_path: Path):
    base = save_tiny_model(tmp_path / "base")
    with GrpoLearner(base, FAST, lora=LORA) as learner:
        learner.save(tmp_path / "adapter")
    file, config = (
        tmp_path / "adapter" / name for name in ("adapter_model.safetensors", "adapter_config.json")
    )
    weights, fields = load_file(file), json.loads(config.read_text())
    name = next(iter(weights))
    save_file({key: value for key, value in weights.items() if key != name}, file)
    with pytest.raises(ConfigError, match="differ in 1 weights"):
        load_trained(tmp_path / "adapter", None, 0)
    save_file({key: value[..., :1].contiguous() for key, value in weights.items()}, file)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_trained(tmp_path / "adapter", None, 0)
    config.write_text(json.dumps(fields | {"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="base model"):
        load_trained(tmp_path / "adapter", None, 0)


def test_a_whole_model_is_loaded_in_32_bits(tmp_path: Path):
    base = save_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    assert load_trained(base, None, 0).dtype == load_model(base).dtype == torch.float32
