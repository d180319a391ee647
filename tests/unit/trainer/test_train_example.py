"""The examples of training on GPUs: every file of them can be read by what is to read it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from accelerate.commands.config.config_args import load_config_from_file

from proofloop.config.curriculum_file import SAMPLED, load_curriculum
from proofloop.config.run_file import load_runspec
from proofloop.curriculum import compose
from proofloop_trainer.grpo.settings import grpo_settings
from proofloop_trainer.role_training import role_settings
from proofloop_trainer.train import check_settings

EXAMPLES = Path(__file__).parents[3] / "examples"
EXAMPLE = EXAMPLES / "train-fsdp2"


def test_the_run_file_trains_both_roles_with_settings_that_grpo_knows() -> None:
    spec = load_runspec(EXAMPLE / "run.toml")
    check_settings(spec)
    assert spec.training.roles == ("generator", "verifier")
    settings = grpo_settings(
        spec.training.verifier.settings, "training.verifier", "run", spec.sampling.verifier
    )
    assert (settings.truncated, settings.max_staleness) == ("mask", 4)
    assert spec.problems.file is not None


@pytest.mark.parametrize("name", ["train-fsdp2", "train-one-gpu"])
def test_the_curriculum_is_one_on_files_with_settings_that_grpo_knows(name: str) -> None:
    spec = load_curriculum(EXAMPLES / name / "curriculum.toml")
    assert spec.files is not None
    for kind in SAMPLED:
        run = compose.example_of(spec, kind)
        settings = role_settings(run, SAMPLED[kind])
        rate = 1e-5 if spec.lora else 1e-6
        assert (settings.truncated, settings.learning_rate) == ("mask", rate)


@pytest.mark.parametrize(
    ("name", "processes", "on_cpu"), [("one-node-8-gpus", 8, False), ("two-processes-cpu", 2, True)]
)
def test_the_configurations_are_accelerates_and_say_fsdp2(
    name: str, processes: int, on_cpu: bool
) -> None:
    found = load_config_from_file(str(EXAMPLE / f"{name}.yaml"))
    assert (found.num_processes, found.use_cpu) == (processes, on_cpu)
    assert found.distributed_type == "FSDP" and found.fsdp_config["fsdp_version"] == 2
