"""One model trained by two real processes, its weights cut up by FSDP2 and gradients sent through
gloo.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from proofloop.schema import keys
from proofloop.schema.records import TrainingBatch, TrainingStep
from proofloop.store import LocalStore, get_record
from proofloop.store.model_folders import version_folder
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.nano import BASE_FOLDER
from tests.integration.test_mixture_of_experts import save_tiny_mixture
from tests.integration.two_processes import train
from tests.unit.trainer.grpo_examples import save_tiny_model

# On a machine that does much else: processes start four times.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "train-fsdp2"
SCRIPT = str(ROOT / "tests" / "integration" / "two_processes.py")
TWO_ON_CPU = (str(EXAMPLE / "two-processes-cpu.yaml"),)
ONE_ON_GPU = (str(EXAMPLE / "one-node-8-gpus.yaml"), "--num_processes", "1")
MODELS = ("dense", "moe")
LEARNERS = (*MODELS, "adapter")
ROUNDING = 1e-8
"""A gradient below this is what adding 32-bit parts in another order leaves of 0."""
CURRICULUM = """
name = "two"
iterations = 1
measured = 0
sampling.generator = { max_tokens = 32 }
sampling.verifier = { max_tokens = 48 }
sampling.meta_verifier = { max_tokens = 32 }
cold_start = { steps = 0 }
data = { problems = 12, proofs = 12, analyses = 4, validation = 2 }
verifier = { steps = 2, groups = 6, samples = 6 }
meta_verifier = { steps = 0 }
enhanced = { steps = 0 }
generator = { steps = 0 }
labels = { problems = 1, proofs_per_problem = 1, rule = { n = 1, m = 1, k = 1 } }
consolidate = { prompts = 2, samples = 2, keep = 0.0 }
watch = { format = 0.0, same_score = 1.0, shorter = 0.01, longer = 100.0 }
"""


needs_gpu = pytest.mark.skipif(
    os.environ.get("PROOFLOOP_TEST_GPU") != "1",
    reason="no GPU: set PROOFLOOP_TEST_GPU=1 where there is one",
)


def launch(*arguments: str, configuration: tuple[str, ...] = TWO_ON_CPU) -> subprocess.Popen[str]:
    """Start the processes by accelerate's own launcher."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    if configuration == ONE_ON_GPU:
        environment["CUDA_VISIBLE_DEVICES"] = "0"
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--main_process_port",
        "0",
        "--config_file",
    ]
    return subprocess.Popen(
        [*launcher, *configuration, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What one process and what two made of the same batches."""
    folder = tmp_path_factory.mktemp("fsdp")
    models = [save_tiny_model(folder / "dense"), save_tiny_mixture(folder / "moe")]
    with launch(SCRIPT, str(folder / "two"), *map(str, models)) as started:
        one = train(folder / "one", models)
        two = said_by(started)
    return {"one": one, "two": two, "folder": folder}


def said_by(started: subprocess.Popen[str]) -> dict:
    """What the script printed."""
    output, _ = started.communicate()
    assert started.returncode == 0, output[-3000:]
    (line,) = (line for line in output.splitlines() if line.startswith('{"'))
    return json.loads(line)  # type: ignore[no-any-return]


def weights(seen: dict, of: str, name: str, file: str = "model") -> dict[str, torch.Tensor]:
    prefix = "adapter_" if file == "model" and name.startswith("adapter") else ""
    return load_file(seen["folder"] / of / name / f"{prefix}{file}.safetensors")


@pytest.mark.parametrize("model", LEARNERS)
def test_two_processes_take_the_step_of_one(seen: dict, model: str) -> None:
    """Weights are compared where a gradient is more than rounding: AdamW moves a weight by its
    sign, however small.
    """
    for figure in (model, f"{model} gradients", f"{model} kl"):
        one, two = seen["one"][figure], seen["two"][figure]
        assert two[0] == pytest.approx(one[0], rel=1e-5, abs=1e-7)
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    (one, two), (ours, theirs) = (
        [weights(seen, of, f"{model}-0", file) for of in ("one", "two")]
        for file in ("model", "optimizer")
    )
    assert one.keys() == two.keys() and ours.keys() == theirs.keys()
    for name, tensor in one.items():
        # None for experts: a file holds them apart, the optimizer together.
        gradient = ours.get(f"{name}/exp_avg")
        is_moved = (
            torch.ones_like(tensor, dtype=torch.bool)
            if gradient is None
            else gradient.abs() > ROUNDING
        )
        torch.testing.assert_close(two[name][is_moved], tensor[is_moved], rtol=0, atol=1e-5)
    for name in (name for name in ours if name.endswith("/exp_avg")):  # a tenth of the gradient
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-5, atol=ROUNDING)


@pytest.mark.parametrize("model", LEARNERS)
def test_each_process_holds_its_part_of_the_weights(seen: dict, model: str) -> None:
    assert seen["one"][f"{model} held"] == [1.0]
    assert seen["two"][f"{model} held"][0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("model", LEARNERS)
def test_a_checkpoint_of_two_processes_goes_on_with_the_identical_step(
    seen: dict, model: str
) -> None:
    _, uninterrupted, restored = seen["two"][model]
    assert restored == uninterrupted
    assert seen["two"][f"{model} after an error"] == [uninterrupted]
    for file in ("model", "optimizer"):
        through, again = (
            weights(seen, "two", f"{model}-{which}", file) for which in ("1", "again")
        )
        assert through.keys() == again.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in through.items())


def test_a_step_without_a_signal_and_one_with_less_answers_than_processes(seen: dict) -> None:
    assert seen["two"]["silent, single"][::2] == [0, 1]
    assert seen["two"]["silent, single"] == pytest.approx(
        seen["one"]["silent, single"], rel=1e-4, abs=1e-6
    )


def test_supervised_steps_are_those_of_one_process(seen: dict) -> None:
    one, two = (weights(seen, of, "tuned") for of in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)


@needs_gpu
def test_one_process_on_a_gpu_takes_the_steps_of_two_on_the_cpu(seen: dict, tmp_path: Path) -> None:
    options = (
        "--mixed_precision",
        "no",
        SCRIPT,
        str(tmp_path),
        *(str(seen["folder"] / name) for name in MODELS),
    )
    with launch(*options, configuration=ONE_ON_GPU) as started:
        found = said_by(started)
    assert "cuda" in found["device"]
    for model in LEARNERS:
        for figure in (model, f"{model} gradients", f"{model} kl"):
            assert found[figure] == pytest.approx(seen["two"][figure], rel=1e-3, abs=1e-5)
        assert found[f"{model} held"] == [1.0]
        _, uninterrupted, restored = found[model]
        assert restored == pytest.approx(uninterrupted, rel=1e-6)


CASES = [
    (TWO_ON_CPU, "true"),
    *(pytest.param(ONE_ON_GPU, offloads, marks=needs_gpu) for offloads in ("true", "false")),
]


@pytest.mark.parametrize(("configuration", "offloads"), CASES)
def test_layers_compute_in_16_bits_and_all_else_stays_in_32(
    configuration: tuple[str, ...], offloads: str, tmp_path: Path
) -> None:
    """With activations that are computed again, and offloaded weights too: on a CPU that moves
    nothing.
    """
    model = save_tiny_model(tmp_path / "model")
    said = {
        "mixed_precision": "bf16",
        "fsdp_offload_params": offloads,
        "fsdp_activation_checkpointing": "true",
    }
    options = [word for name, value in said.items() for word in (f"--{name}", value)]
    with launch(
        *options, SCRIPT, str(tmp_path), str(model), configuration=configuration
    ) as started:
        found = said_by(started)
    assert (found["offloads"], found["recomputes"]) == (offloads, True)
    assert found["types"] == ["torch.float32"] * 3
    logits_TV = AutoModelForCausalLM.from_pretrained(model)(
        input_ids=torch.tensor([[5, 6, 7, 8, 9]])
    ).logits[0]
    expected = logits_TV[2:4].log_softmax(-1)[[0, 1], [8, 9]].tolist()
    assert found["logprobs"] == pytest.approx(expected, abs=0.03)
    assert torch.tensor(found["logprobs"]).bfloat16().tolist() != found["logprobs"]
    if configuration == TWO_ON_CPU:
        # The sum of two processes' parts, each of 16 bits.
        assert found["gradients beyond 16 bits"] > 0.1
    through, again = found["losses"]
    assert again == through
    assert found["adapter's gradient"] > 0


def test_a_killed_curriculum_of_two_processes_goes_on_where_it_stood(tmp_path: Path) -> None:
    curriculum = tmp_path / "curriculum.toml"
    root = tmp_path / "store"
    kept = tmp_path / "checkpoint"
    curriculum.write_text(CURRICULUM)
    command = ("-m", "proofloop_trainer.launch", "iterate", str(curriculum), "--store", str(root))
    store = LocalStore(root)
    with launch(*command) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "1-verifier: step 1/2" in line:
                break
        else:
            pytest.fail("the first step was never taken")
        for process in psutil.Process(first.pid).children(recursive=True):
            process.kill()
        first.stdout.read()
    assert first.returncode != 0
    checkpoint = keys.checkpoint("two-1-verifier", "verifier", 1)
    shutil.copytree(version_folder(store, tmp_path, checkpoint), kept)
    with launch(*command) as second:
        output, _ = second.communicate()
    assert second.returncode == 0, output[-3000:]
    assert "1-verifier: step 1/2" not in output and "1-verifier: step 2/2" in output
    assert store.exists(keys.stage("two", "1-consolidate"))
    # The step that it went on with is the one that a single process takes from that checkpoint.
    batch = get_record(store, keys.batch("two-1-verifier", "verifier", 1), TrainingBatch)
    taken = get_record(store, keys.step("two-1-verifier", "verifier", 2), TrainingStep)
    assert taken.figures["updates"] > 0
    expected = GrpoLearner.restore(kept, BASE_FOLDER).step(batch)
    assert taken.figures["loss"] == pytest.approx(expected.loss, rel=1e-4, abs=1e-6)
    assert taken.figures["grad_norm"] == pytest.approx(expected.grad_norm, rel=1e-3, abs=1e-6)
