"""The loss of a GRPO step, term by term: against numbers worked out by hand, a plain loss over
single sequences, and TRL's loss.

Legend: T tokens of one completion.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from proofloop.schema.records import TrainingSample
from proofloop_trainer.grpo.batch import advantages, answers_to_train, collate
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.loss import grpo_loss
from proofloop_trainer.grpo.policy import load_model, load_reference, score
from proofloop_trainer.grpo.settings import GrpoSettings
from tests.unit.trainer.grpo_examples import (
    END,
    ONE_UPDATE,
    PAD,
    VOCABULARY,
    batch,
    changed,
    ragged_samples,
    sample,
    save_tiny_model,
)
from tests.unit.trainer.trl_oracle import trl_loss_and_gradients

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def reference_folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("reference"), seed=1)


# The plain loss: sequence by sequence, without padding.


@functools.cache
def model_in(folder: Path) -> LlamaForCausalLM:
    """Read once: the reference asks it for each answer."""
    return LlamaForCausalLM.from_pretrained(folder)


def logprobs_T(folder: Path, sample: TrainingSample, temperature: float = 1.0) -> Tensor:
    model = model_in(folder)
    ids = torch.tensor([sample.tokens.prompt_ids + sample.tokens.completion_ids])
    start = len(sample.tokens.prompt_ids)
    with torch.no_grad():
        logits = model(ids).logits[0, start - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(-1, ids[0, start:, None])[:, 0]


def expected_loss(
    samples, settings: GrpoSettings, folder: Path, reference: Path | None = None
) -> float:
    losses = []
    for one, advantage in zip(samples, advantages(samples), strict=True):
        new, old = logprobs_T(folder, one, settings.temperature), torch.tensor(one.tokens.logprobs)
        ratio = torch.exp(new - old)
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        term = torch.minimum(ratio * advantage, clipped * advantage)
        delta = settings.off_policy_mask_threshold
        if delta is not None and advantage < 0 and (old - new).mean() > delta:
            term = term * 0
        if reference is not None:
            difference = logprobs_T(reference, one, settings.temperature) - new
            kl = difference.exp() - difference - 1
            term = term - settings.kl_coefficient * (kl * ratio if settings.unbiased_kl else kl)
        losses.append(-term.mean())
    return torch.stack(losses).mean().item()


# Each term of the loss


def test_loss_of_one_token_is_the_ratio_times_the_advantage(model_folder):
    samples = [sample(reward, completion=(8,)) for reward in (1.0, 0.0)]
    new = logprobs_T(model_folder, samples[0]).item()
    good, bad = (
        sample(reward, completion=(8,), logprobs=(new - shift,))
        for reward, shift in ((1.0, 0.1), (0.0, -0.1))
    )
    report = GrpoLearner(model_folder, ONE_UPDATE).step(batch(good, bad))
    # Both inside the clip range: -(e^0.1 * 0.5 + e^-0.1 * -0.5) / 2
    assert report.loss == pytest.approx(-(1.105171 * 0.5 - 0.904837 * 0.5) / 2, abs=1e-6)
    assert report.mean_ratio == pytest.approx((1.105171 + 0.904837) / 2, abs=1e-6)
    assert report.clip_share == 0


def test_ratio_is_cut_where_it_would_pay_and_only_there(model_folder):
    new = logprobs_T(model_folder, sample(1.0, completion=(8,))).item()
    good, bad = (sample(reward, completion=(8,), logprobs=(new - 1.0,)) for reward in (1.0, 0.0))
    report = GrpoLearner(model_folder, changed(ONE_UPDATE, clip_high=0.3)).step(batch(good, bad))
    # r = e: the good one is held at 1.3, the bad one is not.
    assert report.loss == pytest.approx(-(1.3 * 0.5 - 2.718282 * 0.5) / 2, abs=1e-5)
    assert report.clip_share == 0.5


def test_samplers_logprobs_enter_the_ratio(model_folder):
    one, other = sample(1.0), sample(0.0, completion=(10, 11, 12))
    shifted = sample(
        1.0, logprobs=tuple(value + 0.05 for value in logprobs_T(model_folder, one).tolist())
    )
    losses = [
        GrpoLearner(model_folder, ONE_UPDATE).step(batch(first, other)).loss
        for first in (one, shifted)
    ]
    assert losses == pytest.approx(
        [expected_loss([first, other], ONE_UPDATE, model_folder) for first in (one, shifted)],
        abs=1e-6,
    )
    assert abs(losses[0] - losses[1]) > 1e-2


TERMS = {
    "policy alone": {"kl_coefficient": 0},
    "unbiased KL": {"kl_coefficient": 0.3, "unbiased_kl": True},
    "plain KL": {"kl_coefficient": 0.3, "unbiased_kl": False},
    "off-policy mask": {"kl_coefficient": 0, "off_policy_mask_threshold": 0.2},
    "everything": {
        "kl_coefficient": 0.3,
        "off_policy_mask_threshold": 0.2,
        "temperature": 1.3,
        "clip_high": 0.28,
    },
}


@pytest.mark.parametrize("name", TERMS)
def test_step_has_the_plain_loss(name, model_folder, reference_folder):
    settings, samples = changed(ONE_UPDATE, **TERMS[name]), ragged_samples(24)
    report = GrpoLearner(model_folder, settings, reference_folder).step(batch(*samples))
    reference = reference_folder if settings.kl_coefficient else None
    assert report.loss == pytest.approx(
        expected_loss(samples, settings, model_folder, reference), abs=2e-6
    )
    assert report.policy_loss + settings.kl_coefficient * report.kl == pytest.approx(report.loss)


@pytest.mark.parametrize("name", TERMS)
def test_loss_and_gradient_are_trls(name, model_folder, reference_folder):
    settings = changed(ONE_UPDATE, **TERMS[name])
    answers = answers_to_train(ragged_samples(24), "train")
    inputs = collate(answers)
    if settings.kl_coefficient:
        with torch.no_grad():
            reference = load_reference(reference_folder, settings.temperature)
            logprobs_BT = score(reference, inputs).logprobs_BT
        inputs = replace(inputs, reference_logprobs_BT=logprobs_BT)
    model = load_model(model_folder, settings.temperature)
    loss = grpo_loss(score(model, inputs).logprobs_BT, inputs, settings).mean
    loss.backward()
    expected, gradients = trl_loss_and_gradients(model_folder, answers, inputs, settings)
    # TRL pads prompts on the left, so sums are rounded otherwise
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-6)
    close(loss, expected)
    close({name: weight.grad for name, weight in model.named_parameters()}, gradients)


def test_terms_of_the_loss_differ_on_these_examples(model_folder, reference_folder):
    """Else the test above could pass with a setting that is never wired."""
    samples = ragged_samples(24)
    losses = {
        name: expected_loss(samples, changed(ONE_UPDATE, **terms), model_folder, reference_folder)
        for name, terms in TERMS.items()
    }
    assert len({round(loss, 4) for loss in losses.values()}) == len(TERMS)


def test_bad_answer_that_the_model_has_left_behind_is_dropped(model_folder):
    stale = sample(0.0, logprobs=(0.0, 0.0))
    report = GrpoLearner(model_folder, changed(ONE_UPDATE, off_policy_mask_threshold=0.5)).step(
        batch(sample(1.0, logprobs=(0.0, 0.0)), stale)
    )
    assert report.off_policy_share == 0.5


def test_kl_pulls_towards_the_given_reference_and_is_zero_at_the_reference(
    model_folder, reference_folder
):
    settings, samples = changed(ONE_UPDATE, kl_coefficient=1.0), ragged_samples(8)
    assert GrpoLearner(model_folder, settings).step(batch(*samples)).kl == pytest.approx(
        0, abs=1e-6
    )
    assert GrpoLearner(model_folder, settings, reference_folder).step(batch(*samples)).kl > 0.01


def test_the_balance_loss_that_a_mixtures_config_asks_for_is_no_part_of_the_step(
    model_folder, tmp_path
):
    """It differs with the split into passes."""
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "head_dim": 16,
    }
    few = {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    config = Qwen3MoeConfig(
        **sizes, **few, router_aux_loss_coef=0.5, pad_token_id=PAD, eos_token_id=END
    )
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path)
    reports = [
        GrpoLearner(tmp_path, changed(ONE_UPDATE, tokens_per_pass=tokens)).step(
            batch(*ragged_samples(24))
        )
        for tokens in (40, 10_000)
    ]
    assert reports[0].loss == pytest.approx(reports[1].loss, abs=1e-6)


def test_learned_positions_do_not_depend_on_the_longest_prompt_of_the_pass(tmp_path: Path):
    size = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 14}
    ends = {"bos_token_id": END, "eos_token_id": END}
    config = GPT2Config(vocab_size=VOCABULARY, initializer_range=0.5, **size, **ends)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = load_reference(tmp_path)
    short, long = answers_to_train(
        [sample(1.0, completion=(8, 9, 10, 11)), sample(0.0, prompt=tuple(range(5, 15)))], "train"
    )
    alone, beside = (
        score(model, collate(answers)).logprobs_BT[0, : short.length]
        for answers in ([short], [short, long])
    )
    torch.testing.assert_close(beside, alone)


@pytest.mark.parametrize("tokens_per_pass", [1, 40, 100])
def test_cutting_a_minibatch_into_passes_changes_neither_loss_nor_update(
    tokens_per_pass, model_folder
):
    whole, cut = (
        GrpoLearner(model_folder, changed(ONE_UPDATE, kl_coefficient=0.1, tokens_per_pass=tokens))
        for tokens in (10_000, tokens_per_pass)
    )
    reports = [learner.step(batch(*ragged_samples(24))) for learner in (whole, cut)]
    assert reports[1].loss == pytest.approx(reports[0].loss, abs=1e-6)
    assert reports[1].grad_norm == pytest.approx(reports[0].grad_norm, rel=1e-4)
