"""Supervised steps: what is learnt, and that memory settings do not change the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from proofloop.errors import Reject
from proofloop.schema import keys
from proofloop.schema.records import TrainingStep
from proofloop.store import LocalStore, get_record
from proofloop_trainer.export import dtype_of
from proofloop_trainer.fine_tuning.step_records import StepRecords
from proofloop_trainer.fine_tuning.supervised import (
    Schedule,
    SupervisedStep,
    answer_to_learn,
    fine_tune,
    supervised_loss,
)
from proofloop_trainer.grpo.batch import Answer
from proofloop_trainer.grpo.policy import load_model
from tests.unit.trainer.grpo_examples import ragged_samples, save_tiny_model

ANSWERS = [answer_to_learn(one.tokens) for one in ragged_samples(9)]
HOW = Schedule(batch=4, learning_rate=1e-2, epochs=3)


def loss(folder: Path) -> float:
    with torch.no_grad():
        return supervised_loss(load_model(folder), ANSWERS).item()


def test_the_loss_is_the_cross_entropy_of_logits_that_are_never_made_at_once(tmp_path: Path):
    folder = save_tiny_model(tmp_path)
    answers = ANSWERS
    plain, model = AutoModelForCausalLM.from_pretrained(folder), load_model(folder)
    tokens = [torch.cat((answer.prompt_ids_P, answer.completion_ids_C)) for answer in answers]
    losses = [
        functional.cross_entropy(
            plain(input_ids=row[None]).logits[0, :-1], row[1:], reduction="none"
        )
        for row in tokens
    ]
    answered = [
        loss[-len(answer.completion_ids_C) :] for loss, answer in zip(losses, answers, strict=True)
    ]
    torch.cat(answered).mean().backward()
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("all logits were made"))
    found = supervised_loss(model, answers)
    found.backward()
    torch.testing.assert_close(found, torch.cat(answered).mean())
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_tokenizer_without_a_padding_token_will_do(tmp_path: Path):
    start = save_tiny_model(tmp_path / "start")
    tokenizer = AutoTokenizer.from_pretrained(start)
    fine_tune(start, tmp_path / "with", ANSWERS, HOW, seed=0)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(start)
    assert AutoTokenizer.from_pretrained(start).pad_token_id is None
    fine_tune(start, tmp_path / "without", ANSWERS, HOW, seed=0)
    assert loss(tmp_path / "without") == loss(tmp_path / "with")


def test_the_answers_become_likelier_and_how_passes_are_cut_changes_no_weight(tmp_path: Path):
    start = save_tiny_model(tmp_path / "start")
    steps: list[SupervisedStep] = []
    fine_tune(start, tmp_path / "whole", ANSWERS, HOW, seed=0, after_step=steps.append)
    assert [step.number for step in steps] == list(range(1, 10))  # ceil(9 / 4) an epoch
    assert {step.total for step in steps} == {9}
    assert steps[-1].loss < steps[0].loss
    fine_tune(
        start, tmp_path / "cut", ANSWERS, HOW.model_copy(update={"tokens_per_pass": 1}), seed=0
    )
    assert loss(tmp_path / "whole") < loss(start) - 0.5
    cut = load_file(tmp_path / "cut" / "model.safetensors")
    for name, weight in load_file(tmp_path / "whole" / "model.safetensors").items():
        torch.testing.assert_close(cut[name], weight, rtol=0, atol=1e-3)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path):
    start = save_tiny_model(tmp_path / "start")
    too_fast = Schedule(batch=4, learning_rate=1e30, epochs=3)
    with pytest.raises(Reject, match=r"supervised step 2: loss nan"):
        fine_tune(start, tmp_path / "tuned", ANSWERS, too_fast, seed=0)
    assert not (tmp_path / "tuned").exists()


def test_what_is_learnt_is_written_in_32_bits_whatever_the_start_has(tmp_path: Path):
    start = save_tiny_model(tmp_path / "start", dtype=torch.bfloat16)
    fine_tune(start, tmp_path / "tuned", ANSWERS, HOW, seed=0)
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert any((weight != weight.bfloat16()).any() for weight in after.values())
    assert dtype_of(tmp_path / "tuned") == torch.float32


def test_steps_count_updates_and_go_through_the_answers_again() -> None:
    counted = Schedule(batch=4, steps=7)
    cuts = list(counted.minibatches(ANSWERS, seed=0))
    assert (len(cuts), counted.updates(len(ANSWERS))) == (7, 7)
    whole = list(Schedule(batch=4, epochs=2).minibatches(ANSWERS, seed=0))
    assert [_names(cut) for cut in cuts[:6]] == [_names(cut) for cut in whole]
    assert list(counted.minibatches([], seed=0)) == []


def test_a_training_that_begins_again_leaves_no_record_of_the_stopped_one(tmp_path: Path):
    """A curriculum may change [consolidate] in between."""
    store = LocalStore(tmp_path)
    for answers, total in ((5, 4), (7, 2)):
        records = StepRecords(store, "run", total, {"verifier": answers})
        for number in (1, 2, 3)[:total]:
            records.add(SupervisedStep(number, total, loss=1.0, learning_rate=1e-3, tokens=8))
    found = [get_record(store, key, TrainingStep) for key in store.list(keys.all_steps("run"))]
    assert [(step.step, step.figures["answers_verifier"]) for step in found] == [(1, 7), (2, 7)]


def _names(cut: list[Answer]) -> list[int]:
    return [id(answer) for answer in cut]
