"""What a GRPO step trains on, what it reports, and what it refuses. The loss itself:
test_grpo_loss.py.
"""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from proofloop.errors import ConfigError, ProofloopError, Reject
from proofloop.schema.records import Sampling
from proofloop_trainer.grpo.batch import advantages, answers_to_train, collate, minibatches, passes
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings, grpo_settings
from proofloop_trainer.launch import repeat
from proofloop_trainer.ranks import Order
from tests.unit.trainer.grpo_examples import (
    END,
    ONE_UPDATE,
    VOCABULARY,
    batch,
    changed,
    overflowing,
    ragged_samples,
    sample,
    save_tiny_model,
)

pytestmark = pytest.mark.filterwarnings("error")


def weights(learner: GrpoLearner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.model.parameters()]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


# Advantages


def test_an_advantage_is_the_distance_to_the_group_mean_undivided():
    samples = [
        sample(1.0, group="a"),
        sample(0.25, group="b"),
        sample(0.0, group="a"),
        sample(0.75, group="b"),
    ]
    assert advantages(samples) == [0.5, -0.25, -0.5, 0.25]


def test_advantages_of_a_group_that_agrees_are_exactly_zero():
    assert advantages([sample(0.1)] * 49) == [0.0] * 49


def test_masked_truncated_answer_counts_in_its_groups_mean_and_does_not_train():
    samples = [sample(1.0), sample(0.5), sample(0.0, truncated=True)]
    assert [answer.advantage for answer in answers_to_train(samples, "mask")] == [0.5, 0.0]
    assert [answer.advantage for answer in answers_to_train(samples, "train")] == [0.5, 0.0, -0.5]


def test_empty_answer_counts_in_its_groups_mean_and_does_not_train():
    assert [
        a.advantage for a in answers_to_train([sample(1.0), sample(0.0, completion=())], "train")
    ] == [0.5]


def test_a_pass_lies_where_it_is_computed_though_the_weights_wait_elsewhere(tmp_path: Path):
    learner = GrpoLearner(save_tiny_model(tmp_path), ONE_UPDATE)
    learner.model.to("meta")  # as offloaded weights wait on the CPU of a machine with a GPU
    inputs = collate(answers_to_train(ragged_samples(8), "train"))
    assert {tensor.device for tensor in vars(inputs).values() if tensor is not None} == {
        torch.device("cpu")
    }


# How a batch is cut


def test_minibatches_hold_every_answer_once_in_nearly_equal_parts():
    answers = answers_to_train(ragged_samples(20), "train")
    parts = minibatches(answers, 9, "seed")
    assert sorted(map(len, parts)) == [6, 7, 7]
    assert {id(answer) for part in parts for answer in part} == {id(answer) for answer in answers}


def test_passes_go_by_length_so_that_little_is_padding():
    lengths = [
        answer.length
        for part in passes(answers_to_train(ragged_samples(20), "train"), 30)
        for answer in part
    ]
    assert lengths == sorted(lengths)


def test_no_pass_exceeds_its_tokens_unless_one_answer_does():
    answers = answers_to_train(ragged_samples(40), "train")
    for part in passes(answers, 30):
        assert collate(part).ids_BT.numel() <= 30
    assert [len(part) for part in passes(answers[:3], 1)] == [1, 1, 1]


# A learner


def test_report_describes_the_batch(model_folder):
    samples = (
        sample(1.0, group="a"),
        sample(0.0, group="a", truncated=True, completion=(8, 9, 10, END)),
        sample(0.5, group="b"),
        sample(0.5, group="b"),
    )
    report = GrpoLearner(model_folder, changed(ONE_UPDATE, epochs=3)).step(batch(*samples))
    assert replace(
        report, loss=0, policy_loss=0, entropy=0, mean_ratio=0, clip_share=0, grad_norm=0, seconds=0
    ) == (
        type(report)(
            step=1,
            loss=0,
            policy_loss=0,
            kl=0,
            entropy=0,
            mean_ratio=0,
            clip_share=0,
            off_policy_share=0,
            grad_norm=0,
            updates=3,
            mean_reward=0.5,
            reward_std=0.125**0.5,
            advantage_share=0.5,
            groups=2,
            groups_without_signal=1,
            truncated_share=0.25,
            completion_length=2.5,
            tokens=3 * (2 + 4),
            seconds=0,
        )
    )


def test_group_without_signal_does_not_train(model_folder):
    learner = GrpoLearner(model_folder, changed(ONE_UPDATE, kl_coefficient=0.5))
    before = weights(learner)
    report = learner.step(batch(sample(0.5), sample(0.5)))
    assert (report.updates, report.groups_without_signal, report.loss) == (0, 1, 0)
    assert same(weights(learner), before)


def test_group_without_signal_leaves_the_other_groups_step_as_it_was(model_folder):
    speaking, silent = ragged_samples(4), (sample(0.5, group="silent"), sample(0.5, group="silent"))
    alone, together = GrpoLearner(model_folder, ONE_UPDATE), GrpoLearner(model_folder, ONE_UPDATE)
    alone.step(batch(*speaking))
    together.step(batch(*speaking, *silent))
    assert same(weights(alone), weights(together))


def test_the_step_size_falls_to_a_tenth_and_stays_there(model_folder):
    settings = changed(ONE_UPDATE, learning_rate=1.0, decay_steps=4)
    assert [settings.step_size(step) for step in (1, 2, 4, 9)] == pytest.approx(
        [0.775, 0.55, 0.1, 0.1]
    )
    learner = GrpoLearner(model_folder, changed(ONE_UPDATE, learning_rate=1e-3, decay_steps=2))
    sizes = []
    for _ in range(2):
        learner.step(batch(*ragged_samples(4)))
        sizes.append(learner.optimizer.param_groups[0]["lr"])
    assert sizes == pytest.approx([0.55e-3, 1e-4])
    assert GrpoSettings(learning_rate=1e-3).step_size(100) == 1e-3


def test_same_seed_takes_the_same_steps_and_another_seed_others(model_folder):
    settings = GrpoSettings(minibatch_sequences=8, kl_coefficient=0)
    learners = [GrpoLearner(model_folder, changed(settings, seed=seed)) for seed in (0, 0, 1)]
    for learner in learners:
        learner.step(batch(*ragged_samples(24)))
    assert same(weights(learners[0]), weights(learners[1]))
    assert not same(weights(learners[0]), weights(learners[2]))


def test_a_loss_that_is_not_finite_is_refused(model_folder):
    learner = GrpoLearner(model_folder, GrpoSettings(minibatch_sequences=4, kl_coefficient=0))
    learner.step(batch(*ragged_samples(8)))
    samples = ragged_samples(16, seed=2)
    with pytest.raises(Reject, match=r"step 2, \d sequences: loss .* nothing is published"):
        learner.step(batch(*samples, overflowing(samples[-1].group)))
    assert learner.steps == 1


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (sample(1.0, logprobs=(-1.0,)), "2 completion tokens and 1 log-prob"),
        (sample(1.0, logprobs=(-1.0, float("-inf"))), "not a finite number"),
        (sample(float("nan")), "not a finite number"),
        (sample(1.0, prompt=()), "no prompt"),
        (sample(1.0, completion=(8, VOCABULARY)), f"token id {VOCABULARY}"),
    ],
)
def test_sample_that_cannot_be_learned_from_is_named_and_changes_nothing(
    broken, problem, model_folder
):
    learner = GrpoLearner(model_folder, ONE_UPDATE)
    untouched = GrpoLearner(model_folder, ONE_UPDATE)
    with pytest.raises(ProofloopError, match=problem):
        learner.step(batch(sample(0.0), broken))
    assert same(weights(learner), weights(untouched))
    assert (
        learner.step(batch(*ragged_samples(8))).loss
        == untouched.step(batch(*ragged_samples(8))).loss
    )
    assert same(weights(learner), weights(untouched))


def test_empty_batch_is_refused(model_folder):
    with pytest.raises(ProofloopError, match="no samples"):
        GrpoLearner(model_folder, ONE_UPDATE).step(batch())


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no model in"):
        GrpoLearner(tmp_path, ONE_UPDATE)


def test_a_step_trains_at_the_temperature_that_its_answers_were_sampled_at():
    assert grpo_settings({}, "generator", "run", Sampling(temperature=0.7)).temperature == 0.7
    with pytest.raises(
        ConfigError, match=r"\[generator.settings\] temperature = 1: its answers are sampled at 0.7"
    ):
        grpo_settings({"temperature": 1.0}, "generator", "run", Sampling(temperature=0.7))
    for sampled in (Sampling(top_p=0.9), Sampling(temperature=0.0)):
        with pytest.raises(
            ConfigError, match=r"top_p .*\nhint: set top_p = 1 and a temperature above 0"
        ):
            grpo_settings({}, "generator", "run", sampled)


def test_unknown_setting_is_refused():
    with pytest.raises(ValidationError, match="clip_range"):
        GrpoSettings.model_validate({"clip_range": 0.2})


def test_opening_a_learner_is_silent_and_leaves_the_global_generators(
    model_folder, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    learner = GrpoLearner(model_folder, GrpoSettings(seed=7))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    learner.step(batch(*ragged_samples(8)))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert learner.model.config.use_cache


def test_closed_learner_frees_its_models_though_it_is_still_referenced(model_folder):
    """Python's own search for cycles is off: it would not come in time for a GPU."""
    gc.disable()
    try:
        with GrpoLearner(model_folder, GrpoSettings(kl_coefficient=0.1)) as learner:
            kept = [weakref.ref(model) for model in (learner.model, learner.reference)]
        assert [model() for model in kept] == [None, None]
        learner.close()  # again
    finally:
        gc.enable()


def test_another_process_closes_the_learner_that_the_first_one_closed(model_folder):
    arguments = {"model": str(model_folder), "reference": str(model_folder), "settings": {}}
    learners: dict[str, GrpoLearner] = {}
    repeat(Order(call="open", learner="a", arguments=arguments), learners)
    model = weakref.ref(learners["a"].model)
    repeat(Order(call="close", learner="a"), learners)
    assert learners == {} and model() is None


def test_a_gpu_that_is_full_is_an_error_with_the_ways_out(model_folder, monkeypatch):
    learner = GrpoLearner(model_folder, changed(ONE_UPDATE, tokens_per_pass=77))

    def full(**_: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2 GiB. Of the allocated memory 9 GiB is ..."
        )

    monkeypatch.setattr(learner.model, "forward", full)
    with pytest.raises(
        ProofloopError,
        match=r"step 1, passes of 77 tokens: .*allocate 2 GiB\. To reduce memory: .*models_kept",
    ):
        learner.step(batch(*ragged_samples(4)))


# Learning

WANTED = 7


def rollout(learner: GrpoLearner, step: int, prompts: int = 16, group: int = 8, length: int = 5):
    """Answers sampled from the model itself; the reward is the share of one wanted token."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(2, VOCABULARY, (prompts, 3), generator=generator).repeat_interleave(
        group, 0
    )
    logprobs = torch.empty(len(ids), 0)
    for _ in range(length):
        with torch.no_grad():
            next_logprobs = learner.model(ids).logits[:, -1].log_softmax(-1)
        token = torch.multinomial(next_logprobs.exp(), 1, generator=generator)
        ids = torch.cat([ids, token], 1)
        logprobs = torch.cat([logprobs, next_logprobs.gather(1, token)], 1)
    return batch(
        *(
            sample(
                row[3:].count(WANTED) / length,
                group=str(index // group),
                prompt=tuple(row[:3]),
                completion=tuple(row[3:]),
                logprobs=tuple(row_logprobs),
            )
            for index, (row, row_logprobs) in enumerate(
                zip(ids.tolist(), logprobs.tolist(), strict=True)
            )
        )
    )


def test_mean_reward_rises_within_a_few_steps(model_folder):
    learner = GrpoLearner(model_folder, GrpoSettings(learning_rate=3e-3, kl_coefficient=0.001))
    rewards = [learner.step(rollout(learner, step)).mean_reward for step in range(12)]
    assert rewards[0] < 0.1
    assert rewards[-1] > 0.5
