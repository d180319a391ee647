"""Our batches as slime's samples: the fields that it knows, and nothing lost."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("proofloop_trainer.slime", reason="proofloop-trainer is not installed")

from proofloop_trainer.grpo_settings import GrpoSettings
from proofloop_trainer.slime import SAMPLE_FIELDS, launch_arguments, slime_lines, slime_samples
from tests.unit.grpo_examples import batch, sample


def test_a_sample_has_slimes_fields_with_the_tokens_as_they_were_sampled():
    one = sample(1.0, group="p", prompt=(5, 6), completion=(8, 9, 7), logprobs=(-1.0, -2.0, -3.0))
    (found,) = slime_samples(batch(one), GrpoSettings())
    assert found.keys() <= SAMPLE_FIELDS
    assert found["tokens"] == [5, 6, 8, 9, 7]
    assert found["response_length"] == len(found["loss_mask"]) == len(found["rollout_log_probs"]) == 3
    assert found["rollout_log_probs"] == [-1.0, -2.0, -3.0]
    assert (found["reward"], found["weight_versions"], found["status"]) == (1.0, ["v0"], "completed")


def test_groups_are_numbered_in_their_order():
    samples = sample(0.0, group="a"), sample(1.0, group="b"), sample(0.5, group="a")
    found = [json.loads(line) for line in slime_lines(batch(*samples), GrpoSettings()).splitlines()]
    assert [(each["group_index"], each["index"]) for each in found] == [(0, 0), (1, 1), (0, 2)]


@pytest.mark.parametrize(("rule", "mask"), [("train", [1, 1]), ("mask", [0, 0])])
def test_truncated_answers_follow_the_declared_rule(rule: str, mask: list[int]):
    settings = GrpoSettings.model_validate({"truncated": rule})
    (found,) = slime_samples(batch(sample(0.0, truncated=True)), settings)
    assert (found["loss_mask"], found["status"]) == (mask, "truncated")


def test_routed_experts_are_handed_on():
    one = sample(1.0)
    experts = ((0, 3), (1, 2))
    routed = one.model_copy(update={"tokens": one.tokens.model_copy(update={"routed_experts": experts})})
    (found,) = slime_samples(batch(routed), GrpoSettings())
    assert found["rollout_routed_experts"] == [[0, 3], [1, 2]]


def test_the_arguments_switch_every_term_that_the_settings_switch():
    plain = launch_arguments(GrpoSettings(kl_coefficient=0.0))
    assert "--use-kl-loss" not in plain and "--use-opsm" not in plain
    full = launch_arguments(GrpoSettings(kl_coefficient=0.02, off_policy_mask_threshold=0.1))
    assert {"--use-unbiased-kl", "--use-opsm", "--use-rollout-routing-replay", "--use-rollout-logprobs"} <= set(full)
    assert full[full.index("--opsm-delta") + 1] == "0.1"
    assert "--use-unbiased-kl" not in launch_arguments(GrpoSettings(kl_coefficient=0.02, unbiased_kl=False))
