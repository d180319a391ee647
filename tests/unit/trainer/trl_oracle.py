"""TRL's GRPO loss on our passes: what the tests compare our own loss with."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from proofloop_trainer.grpo.batch import Pass
from proofloop_trainer.grpo.settings import GrpoSettings


class QuietTrainer(GRPOTrainer):
    """TRL's trainer without its report to Hugging Face."""

    def _send_telemetry(self) -> None:
        """Do nothing."""


def trl_loss_and_gradients(
    folder: Path, inputs: Pass, settings: GrpoSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a pass, and the gradient of each weight by name."""
    with tempfile.TemporaryDirectory() as unused, torch.random.fork_rng(devices=[]):
        trainer = QuietTrainer(
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
            "prompt_ids": inputs.prompt_ids_BP,
            "prompt_mask": inputs.prompt_mask_BP,
            "completion_ids": inputs.completion_ids_BC,
            "completion_mask": inputs.completion_mask_BC,
            "advantages": inputs.advantages_B,
            "old_per_token_logps": inputs.sampler_logprobs_BC,
            "ref_per_token_logps": inputs.reference_logprobs_BC,
        },
    )
    loss.backward()
    return loss, {name: weight.grad for name, weight in trainer.model.named_parameters()}


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
