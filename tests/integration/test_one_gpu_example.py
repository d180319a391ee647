"""The example for one GPU, as it is but for its numbers, on a CPU with tiny models of today's
architectures.
"""

from __future__ import annotations

import json
import runpy
import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from transformers import LlamaConfig, PretrainedConfig, Qwen3Config

from proofloop.cli.app import app
from proofloop.config.curriculum_file import CurriculumSpec, load_curriculum
from proofloop.curriculum.controller import iterate
from proofloop.curriculum.status import StageManifest, manifests
from proofloop.engine.info import is_adapter
from proofloop.runs.spec import get_spec
from proofloop.schema import keys
from proofloop.schema.records import TrainingBatch, TrainingStep
from proofloop.store import LocalStore, get_record
from proofloop.store.model_folders import MANIFEST, base_folder, version_folder
from proofloop.worker.engine_pool import Engines
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.role_training import role_settings
from tests.tiny_instruct import save_tiny_instruct

pytestmark = pytest.mark.usefixtures("quiet_log")
EXAMPLES = Path(__file__).parents[2] / "examples"
GRPO = ("1-verifier", "1-meta_verifier", "1-enhanced", "1-generator")


def example(folder: Path, config_type: type[PretrainedConfig], **fields: object) -> Path:
    """The example's file with a model and the rows of iterate-files beside it."""
    runpy.run_path(str(EXAMPLES / "iterate-files" / "nano_files.py"))["make"](
        folder, problems=900, proofs=100, analyses=100
    )
    save_tiny_instruct(folder / "start", config_type, **fields)
    return Path(shutil.copy(EXAMPLES / "train-one-gpu" / "curriculum.toml", folder))


def with_few_steps(file: Path, **sections: object) -> CurriculumSpec:
    """The curriculum with everything small that makes it long, and with other sections."""
    fields = load_curriculum(file).model_dump(exclude={"domain", "cold_start"})
    for kind in ("verifier", "meta_verifier", "enhanced", "generator"):
        fields[kind] |= {"steps": 2, "groups": 4, "samples": 4}
    fields["enhanced"]["meta_groups"] = 1
    fields["generator"] |= {"critiques": 2, "metas": 1}
    for sampling in fields["sampling"].values():
        sampling["max_tokens"] = 8
    fields["labels"] |= {"problems": 3, "rule": {"n": 2, "m": 1, "k": 1}}
    fields["consolidate"] |= {"prompts": 4, "samples": 2, "keep": 0.0}
    fields["data"]["validation"] = 4
    return CurriculumSpec.model_validate({**fields, "measured": 2, "watch": {}, **sections})


@pytest.mark.parametrize(
    ("config_type", "fields"), [(Qwen3Config, {"tie_word_embeddings": True}), (LlamaConfig, {})]
)
def test_a_real_models_architecture_goes_through_every_stage(
    tmp_path: Path, config_type: type[PretrainedConfig], fields: dict[str, object]
) -> None:
    spec = with_few_steps(example(tmp_path, config_type, **fields), lora=None)
    store = LocalStore(tmp_path / "store")
    done = through_every_stage(spec, store)
    for place, dtype in ((str, "bfloat16"), (keys.weights, "float32")):
        version = place(str(done["1-consolidate"].version))
        folder = version_folder(store, store.root, version)
        kept = json.loads((folder / "config.json").read_text())
        assert (kept["model_type"], kept["dtype"]) == (config_type.model_type, dtype)
    assert done["1-verifier"].serves
    assert first_step_from(keys.weights(str(done["1-verifier"].version)), spec, store)
    assert not first_step_from(str(done["1-verifier"].version), spec, store)


def through_every_stage(spec: CurriculumSpec, store: LocalStore) -> dict[str, StageManifest]:
    engines = Engines(store, store.root / "cache")
    try:
        iterate(spec, store, engines, threading.Event(), lambda _: None)
    finally:
        engines.close()
    done = manifests(store, spec)
    assert list(done) == [*GRPO, "1-label", "1-consolidate", "measure"]
    for name in GRPO:
        steps = steps_of(store, f"{spec.name}-{name}")
        assert len(steps) == 2 and sum(step.figures["updates"] for step in steps) > 0, name
    return done


def steps_of(store: LocalStore, run: str) -> list[TrainingStep]:
    return [get_record(store, key, TrainingStep) for key in store.list(keys.all_steps(run))]


def test_one_adapter_is_trained_through_every_stage(tmp_path: Path) -> None:
    """What samples has the weights that train: the ratio is 1 at each first step."""
    spec = with_few_steps(example(tmp_path, Qwen3Config, tie_word_embeddings=True))
    store = LocalStore(tmp_path / "store")
    done = through_every_stage(spec, store)
    versions = [str(done[name].version) for name in (*GRPO, "1-consolidate")]
    for version in versions:
        folder = version_folder(store, store.root, version)
        assert is_adapter(folder) and base_folder(folder) == tmp_path / "start"
        assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 500_000
        assert not store.exists(f"{keys.weights(version)}/{MANIFEST}")
    for name in GRPO:
        first, _ = steps_of(store, f"{spec.name}-{name}")
        assert first.figures["mean_ratio"] == pytest.approx(1, abs=0.02), name


def first_step_from(folder: str, spec: CurriculumSpec, store: LocalStore) -> bool:
    """Whether the enhanced stage began with these weights: a step from them on its first batch is
    the same.
    """
    run = f"{spec.name}-1-enhanced"
    taken = get_record(store, keys.step(run, "verifier", 1), TrainingStep)
    settings = role_settings(get_spec(store, run), "verifier")
    learner = GrpoLearner(
        version_folder(store, store.root, folder), settings, spec.base / spec.start
    )
    batch = get_record(store, keys.batch(run, "verifier", 0), TrainingBatch)
    return learner.step(batch).grad_norm == taken.figures["grad_norm"]


def test_doctor_finds_the_example_sound_and_says_where_a_model_of_the_hub_comes_from(
    tmp_path: Path,
) -> None:
    file = example(tmp_path, Qwen3Config)
    asked = ["doctor", str(file), "--store", str(tmp_path / "store"), "--json"]
    found = {each["what"]: each for each in json.loads(CliRunner().invoke(app, asked).stdout)}
    assert (found["curriculum"]["state"], found["engine"]["state"]) == ("ok", "ok"), found
    file.write_text(
        file.read_text("utf-8").replace('start = "start"', 'start = "Qwen/Qwen3-0.6B"'), "utf-8"
    )
    found = {each["what"]: each for each in json.loads(CliRunner().invoke(app, asked).stdout)}
    assert (
        found["curriculum"]["found"]
        == f"no model in {tmp_path}/Qwen/Qwen3-0.6B: config.json is missing"
    )
    assert "hf download" in found["curriculum"]["hint"]
