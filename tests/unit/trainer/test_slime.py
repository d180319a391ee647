"""Our batches as slime's samples: the fields that it knows, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop.cli.app import app
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.curriculum import compose
from proofloop.curriculum.status import add_run, freeze
from proofloop.errors import ConfigError
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import TrainingStep
from proofloop.store import LocalStore, put_record
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.slime import launch_arguments, slime_lines, slime_samples
from tests.unit.trainer.grpo_examples import batch, sample

SAMPLE_FIELDS = """
group_index index prompt tokens multimodal_inputs multimodal_train_inputs response
response_length label reward loss_mask weight_versions rollout_log_probs rollout_routed_experts
remove_sample teacher_log_probs mopd_teacher_log_probs status metadata generate_function_path
train_metadata session_id non_generation_time spec_info prefix_cache_info
"""
"""Every field that slime's Sample has; it takes others as attributes and never looks at them."""


def test_a_sample_has_slimes_fields_with_the_tokens_as_they_were_sampled():
    one = sample(1.0, group="p", prompt=(5, 6), completion=(8, 9, 7), logprobs=(-1.0, -2.0, -3.0))
    (found,) = slime_samples(batch(one), GrpoSettings())
    assert found.keys() <= set(SAMPLE_FIELDS.split())
    assert found["tokens"] == [5, 6, 8, 9, 7]
    assert (
        found["response_length"] == len(found["loss_mask"]) == len(found["rollout_log_probs"]) == 3
    )
    assert found["rollout_log_probs"] == [-1.0, -2.0, -3.0]
    assert (found["weight_versions"], found["status"]) == (["v0"], "completed")


def test_groups_are_numbered_in_their_order():
    samples = sample(0.0, group="a"), sample(1.0, group="b"), sample(0.5, group="a")
    found = [json.loads(line) for line in slime_lines(batch(*samples), GrpoSettings()).splitlines()]
    assert [(each["group_index"], each["index"]) for each in found] == [(0, 0), (1, 1), (0, 2)]


def test_a_reward_is_what_is_more_than_its_own_groups_mean_and_slime_leaves_it_so():
    rewards = {"a": (0.0, 1.0, 0.5), "b": (1.0, 0.5)}
    samples = [sample(reward, group=group) for group, its in rewards.items() for reward in its]
    found = list(slime_samples(batch(*samples), GrpoSettings()))
    assert [each["reward"] for each in found] == [-0.5, 0.5, 0.0, 0.25, -0.25]
    assert [each["metadata"]["raw_reward"] for each in found] == [0.0, 1.0, 0.5, 1.0, 0.5]
    assert "--disable-rewards-normalization" in launch_arguments(GrpoSettings())


@pytest.mark.parametrize(("rule", "mask"), [("train", [1, 1]), ("mask", [0, 0])])
def test_truncated_answers_follow_the_declared_rule(rule: str, mask: list[int]):
    settings = GrpoSettings.model_validate({"truncated": rule})
    (found,) = slime_samples(batch(sample(0.0, truncated=True)), settings)
    assert (found["loss_mask"], found["status"]) == (mask, "truncated")


def test_routed_experts_are_handed_on():
    one = sample(1.0)
    experts = ((0, 3), (1, 2))
    routed = one.model_copy(
        update={"tokens": one.tokens.model_copy(update={"routed_experts": experts})}
    )
    (found,) = slime_samples(batch(routed), GrpoSettings())
    assert found["rollout_routed_experts"] == [[0, 3], [1, 2]]


def test_the_arguments_switch_every_term_that_the_settings_switch():
    plain = launch_arguments(GrpoSettings(kl_coefficient=0.0, replay_routing=False))
    assert not {"--use-kl-loss", "--use-opsm", "--use-rollout-routing-replay"} & set(plain)
    full = launch_arguments(GrpoSettings(kl_coefficient=0.02, off_policy_mask_threshold=0.1))
    assert {
        "--use-unbiased-kl",
        "--use-opsm",
        "--use-rollout-routing-replay",
        "--use-rollout-logprobs",
    } <= set(full)
    assert full[full.index("--opsm-delta") + 1] == "0.1"
    assert full[full.index("--lr-decay-style") + 1] == "constant"
    falling = launch_arguments(GrpoSettings(learning_rate=1e-6, decay_steps=40))
    expected = {"--lr-decay-style": "linear", "--min-lr": "1e-07", "--lr-decay-iters": "40"}
    assert {name: falling[falling.index(name) + 1] for name in expected} == expected
    assert "--use-unbiased-kl" not in launch_arguments(
        GrpoSettings(kl_coefficient=0.02, unbiased_kl=False)
    )


@pytest.mark.parametrize(("samples", "updates"), [(64, 1), (128, 1), (129, 2)])
def test_slime_is_told_how_many_updates_a_batch_makes_and_decays_by_updates(
    samples: int, updates: int
):
    found = launch_arguments(GrpoSettings(minibatch_sequences=128, decay_steps=40), samples)
    expected = {"--num-steps-per-rollout": str(updates), "--lr-decay-iters": str(40 * updates)}
    assert {name: found[found.index(name) + 1] for name in expected} == expected


def export(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", "export-slime", *arguments, "--store", str(root)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a curriculum's run in which the verifier has taken two steps."""
    store = LocalStore(tmp_path / "store")
    settings = {"kl_coefficient": 0.0, "clip_high": 0.28}
    spec = CurriculumSpec.model_validate(
        {"name": "c", "verifier": {"steps": 2, "settings": settings}}
    )
    section = compose.training(spec, "verifier")
    run = compose.reviewing(spec, "1-verifier", compose.everywhere("nano-base"), 2, **section)
    create_run(store, run, resume=False)
    for step in range(2):
        one = batch(sample(0.0), sample(1.0)).model_copy(update={"step": step})
        put_record(store, keys.batch("c-1-verifier", "verifier", step), one)
    return tmp_path / "store"


def test_a_stages_batches_are_written_with_the_arguments_of_its_settings(
    root: Path, tmp_path: Path
):
    done = export(root, "c-1-verifier", "verifier", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0 and done.stdout.startswith("2 batches of c-1-verifier verifier")
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert files.keys() == {"000000.jsonl", "000001.jsonl", "arguments.txt", "notes.txt"}
    first = map(json.loads, files["000000.jsonl"].splitlines())
    assert [each["reward"] for each in first] == [-0.5, 0.5]
    assert "--eps-clip-high 0.28" in files["arguments.txt"]
    assert "--use-kl-loss" not in files["arguments.txt"]
    assert files["notes.txt"].startswith("epochs = 2: slime passes over a batch once")


def test_a_role_that_did_not_train_and_a_folder_that_is_are_named(root: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="has no batches of 'generator'") as caught:
        raise export(root, "c-1-verifier", "generator", "--out", str(tmp_path / "out")).exception
    assert caught.value.hint == "roles with batches: verifier"
    with pytest.raises(ConfigError, match="already exists"):
        raise export(root, "c-1-verifier", "verifier", "--out", str(tmp_path)).exception


def test_a_curriculum_is_told_apart_from_the_runs_of_its_stages(root: Path, tmp_path: Path):
    store = LocalStore(root)
    freeze(store, CurriculumSpec(name="c"))
    add_run(store, "c", "c-1-verifier")
    put_record(store, keys.step("c-1-verifier", "verifier", 1), step_of("c-1-verifier"))
    with pytest.raises(ConfigError, match="'c' is a curriculum") as caught:
        raise export(root, "c", "verifier", "--out", str(tmp_path / "out")).exception
    assert caught.value.hint == "name one of them: c-1-verifier"


def step_of(run: str) -> TrainingStep:
    return TrainingStep(
        run_id=run,
        role="verifier",
        step=1,
        version=keys.model(run, "verifier", 1),
        sampled_by=(),
        figures={},
        reward_parts={},
    )
