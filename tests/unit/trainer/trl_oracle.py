"""TRL's GRPO loss on our passes: what the tests compare our own loss with."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from proofloop_trainer.grpo.batch import Answer, Pass
from proofloop_trainer.grpo.settings import GrpoSettings


def trl_loss_and_gradients(
    folder: Path, answers: Sequence[Answer], inputs: Pass, settings: GrpoSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a pass of these answers, and the gradient of each weight by name."""
    with tempfile.TemporaryDirectory() as unused, torch.random.fork_rng(devices=[]):
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda **columns: [],
            args=_arguments(settings, unused),
            train_dataset=Dataset.from_dict({"prompt": ["unused"]}),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
    trainer.current_gradient_accumulation_steps = 1
    trainer.beta = settings.kl_coefficient  # given to GRPOConfig, TRL would load a reference
    trainer.model.train()
    loss = trainer.compute_loss(
        trainer.model,
        {
            **_prompts(answers),
            "completion_ids": _completions(inputs.ids_BT, answers),
            "completion_mask": _completions(inputs.completion_mask_BT, answers),
            "advantages": inputs.advantages_B,
            "old_per_token_logps": _completions(inputs.sampler_logprobs_BT, answers),
            "ref_per_token_logps": None
            if inputs.reference_logprobs_BT is None
            else _completions(inputs.reference_logprobs_BT, answers),
        },
    )
    loss.backward()
    return loss, {name: weight.grad for name, weight in trainer.model.named_parameters()}


def _prompts(answers: Sequence[Answer]) -> dict[str, Tensor]:
    """Padded on the left, as TRL has them."""
    prompts = [answer.prompt_ids_P for answer in answers]
    masks = [torch.ones_like(ids) for ids in prompts]
    return {
        "prompt_ids": pad_sequence(prompts, batch_first=True, padding_side="left"),
        "prompt_mask": pad_sequence(masks, batch_first=True, padding_side="left"),
    }


def _completions(values_BT: Tensor, answers: Sequence[Answer]) -> Tensor:
    """The values of the completions alone, padded on the right."""
    rows = [
        row_T[len(answer.prompt_ids_P) : answer.length]
        for row_T, answer in zip(values_BT, answers, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)


def _arguments(settings: GrpoSettings, folder: str) -> GRPOConfig:
    return GRPOConfig(
        output_dir=folder,
        loss_type="grpo",
        importance_sampling_level="token",
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        beta=0.0,
        use_bias_correction_kl=settings.unbiased_kl,
        off_policy_mask_threshold=settings.off_policy_mask_threshold,
        temperature=settings.temperature,
        per_device_train_batch_size=2,
        num_generations=2,  # the least that TRL accepts
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
    )
