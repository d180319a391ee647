"""Supervised steps: what is learnt, and that memory is no matter of the loss."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from proofloop.curriculum import Consolidate
from proofloop_trainer.export import dtype_of
from proofloop_trainer.grpo_batch import answer_of
from proofloop_trainer.supervised import fine_tune, supervised_loss
from tests.unit.grpo_examples import ragged_samples, save_tiny_model

ANSWERS = [one.tokens for one in ragged_samples(9)]
HOW = Consolidate(batch=4, learning_rate=1e-2, epochs=3)


def loss(folder: Path) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return supervised_loss(model, [answer_of(tokens) for tokens in ANSWERS], pad_id=0).item()


def test_the_answers_become_likelier_and_how_passes_are_cut_changes_no_weight(tmp_path: Path):
    start = save_tiny_model(tmp_path / "start")
    assert fine_tune(start, tmp_path / "whole", ANSWERS, HOW, seed=0) == 9  # ceil(9 / 4) an epoch
    fine_tune(start, tmp_path / "cut", ANSWERS, HOW.model_copy(update={"tokens_per_pass": 1}), seed=0)
    assert loss(tmp_path / "whole") < loss(start) - 0.5
    cut = load_file(tmp_path / "cut" / "model.safetensors")
    for name, weight in load_file(tmp_path / "whole" / "model.safetensors").items():
        torch.testing.assert_close(cut[name], weight, rtol=0, atol=1e-3)


def test_a_model_that_began_in_16_bits_is_written_in_16(tmp_path: Path):
    start = save_tiny_model(tmp_path / "start", dtype=torch.bfloat16)
    fine_tune(start, tmp_path / "tuned", ANSWERS, HOW, seed=0)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "tuned"))
    assert {name: weight.dtype for name, weight in after.items()} == dict.fromkeys(before, torch.bfloat16)
    assert dtype_of(tmp_path / "tuned") == torch.bfloat16
