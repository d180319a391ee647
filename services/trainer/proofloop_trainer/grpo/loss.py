"""TRL's GRPO loss for answers that were sampled elsewhere.

By default, TRL recomputes the old log-probabilities (the ratio is then 1, and stale answers get no
correction), reports each construction over the network, and seeds all global random generators.
This module prevents all three; see docs/decisions/grpo-on-trl.md.

Legend: B sequences, C completion positions.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from proofloop.errors import ConfigError
from proofloop_trainer import ranks
from proofloop_trainer.grpo.batch import Pass
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.memory import enough_for, make_room
from proofloop_trainer.replay import Replay


@dataclass(frozen=True)
class Tally:
    """Sums over sequences or tokens. Only the report divides them, so no split of a minibatch
    changes a figure.
    """

    sequences: float = 0.0
    tokens: float = 0.0
    loss: float = 0.0  # over sequences, as are the next two
    kl: float = 0.0
    off_policy: float = 0.0
    ratio: float = 0.0  # over tokens, as are the next two
    clipped: float = 0.0
    entropy: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            *(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True))
        )


class RecordedGrpoTrainer(GRPOTrainer):
    """GRPOTrainer as a loss function: it does not sample, loop, log or send telemetry."""

    args: GRPOConfig
    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase
    replay: Replay
    replays_routing: bool

    def use_reference(self, reference: PreTrainedModel, coefficient: float) -> None:
        """Set the reference model of the KL term. TRL itself would load an unsharded copy in each
        process.
        """
        add_fused_lm_head(reference, temperature=self.temperature)
        self.ref_model = reference.eval().requires_grad_(False)
        ranks.place(self.ref_model)
        self.beta = coefficient

    def pass_loss(self, inputs: Pass) -> tuple[Tensor, Tally]:
        """The mean loss of the pass's sequences, and its tally."""
        self.replay.use(inputs.experts_BTE if self.replays_routing else None)
        loss = self.compute_loss(self.model, _trl_inputs(inputs))
        # TRL keeps the metrics of all calls until `log`, which is never called here.
        self._metrics["train"].clear()
        return loss, self._tally(inputs, loss.item())

    @torch.no_grad()
    def reference_logprobs_BC(self, inputs: Pass) -> Tensor:
        """The frozen reference model's log-probabilities of the completion tokens."""
        ids_BT = torch.cat([inputs.prompt_ids_BP, inputs.completion_ids_BC], dim=1)
        mask_BT = torch.cat([inputs.prompt_mask_BP, inputs.completion_mask_BC], dim=1)
        completion = inputs.completion_ids_BC.size(1)
        return super()._get_per_token_logps_and_entropies(
            self.ref_model, ids_BT, mask_BT, completion
        )[0]

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        outputs = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._policy_logprobs_BC = outputs[0].detach()
        self._entropies_BC = outputs[1].detach()
        return outputs

    def _tally(self, inputs: Pass, loss: float) -> Tally:
        mask_BC = inputs.completion_mask_BC
        count = len(inputs.advantages_B)
        ratio_BC = (self._policy_logprobs_BC - inputs.sampler_logprobs_BC).exp()
        return Tally(
            sequences=count,
            tokens=mask_BC.sum().item(),
            loss=loss * count,
            kl=_sum_of_means(self._kl_BC(inputs, ratio_BC), mask_BC) if self.beta else 0.0,
            off_policy=self._dropped(inputs),
            ratio=(ratio_BC * mask_BC).sum().item(),
            clipped=(self._is_clipped_BC(inputs, ratio_BC) * mask_BC).sum().item(),
            entropy=(self._entropies_BC * mask_BC).sum().item(),
        )

    def _kl_BC(self, inputs: Pass, ratio_BC: Tensor) -> Tensor:
        difference_BC = inputs.reference_logprobs_BC - self._policy_logprobs_BC
        kl_BC = difference_BC.exp() - difference_BC - 1
        return kl_BC * ratio_BC if self.args.use_bias_correction_kl else kl_BC

    def _is_clipped_BC(self, inputs: Pass, ratio_BC: Tensor) -> Tensor:
        advantages_B1 = inputs.advantages_B[:, None]
        low_BC = (ratio_BC < 1 - self.epsilon_low) & (advantages_B1 < 0)
        return low_BC | (ratio_BC > 1 + self.epsilon_high) & (advantages_B1 > 0)

    def _dropped(self, inputs: Pass) -> float:
        if self.off_policy_mask_threshold is None:
            return 0.0
        keep_B1 = self.get_off_policy_mask(
            advantages=inputs.advantages_B[:, None],
            per_token_logps=self._policy_logprobs_BC,
            sampling_per_token_logps=inputs.sampler_logprobs_BC,
            mask=inputs.completion_mask_BC,
            off_policy_threshold=self.off_policy_mask_threshold,
        )
        return len(keep_B1) - keep_B1.sum().item()

    def _generate_and_score_completions(self, inputs: object) -> NoReturn:
        raise NotImplementedError("answers come from training batches: call pass_loss")

    def _send_telemetry(self) -> None:
        """Do nothing: TRL would report each construction to Hugging Face."""


def _sum_of_means(values_BC: Tensor, mask_BC: Tensor) -> float:
    return ((values_BC * mask_BC).sum(-1) / mask_BC.sum(-1)).sum().item()


def _trl_inputs(inputs: Pass) -> dict[str, Tensor | None]:
    return {
        "prompt_ids": inputs.prompt_ids_BP,
        "prompt_mask": inputs.prompt_mask_BP,
        "completion_ids": inputs.completion_ids_BC,
        "completion_mask": inputs.completion_mask_BC,
        "advantages": inputs.advantages_B,
        "old_per_token_logps": inputs.sampler_logprobs_BC,
        "ref_per_token_logps": inputs.reference_logprobs_BC,
    }


def open_trainer(
    model_folder: Path, settings: GrpoSettings, reference_folder: Path
) -> RecordedGrpoTrainer:
    """Load the model in `model_folder` under TRL's loss, and the reference if there is a KL term.

    Raises ConfigError if a folder holds no model, ProofloopError if the memory is too small.
    """
    ranks.check_launch()
    require_model(model_folder)
    require_model(reference_folder)
    disable_progress_bar()
    make_room()
    with enough_for(f"opening {model_folder}"):
        return _opened(model_folder, settings, reference_folder)


def _opened(
    model_folder: Path, settings: GrpoSettings, reference_folder: Path
) -> RecordedGrpoTrainer:
    model = _load(model_folder)
    use_cache = model.config.use_cache
    with tempfile.TemporaryDirectory() as unused, _global_generators_kept():
        trainer = RecordedGrpoTrainer(
            model=model,
            reward_funcs=_no_reward,
            args=_arguments(settings, unused),
            train_dataset=Dataset.from_dict({"prompt": ["unused"]}),
            processing_class=AutoTokenizer.from_pretrained(model_folder),
        )
    trainer.current_gradient_accumulation_steps = (
        1  # the loss is divided by it; normally `train` sets it
    )
    model.config.use_cache = (
        use_cache  # the Trainer turns it off, and checkpoints would inherit that
    )
    trainer.model.train()
    trainer.replay = Replay(trainer.model)
    trainer.replays_routing = settings.replay_routing
    ranks.place(
        trainer.model
    )  # before the reference is loaded: each process holds one unsharded model at a time
    if settings.kl_coefficient:
        trainer.use_reference(_load(reference_folder), settings.kl_coefficient)
    _disable_metric_collection(trainer.accelerator)
    return trainer


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)


def _disable_metric_collection(accelerator: Accelerator) -> None:
    """Keep TRL from gathering unused metrics in each pass: it hangs if the processes' passes
    differ.
    """
    for collect in ("gather", "gather_for_metrics", "reduce"):
        setattr(accelerator, collect, lambda tensor, **_: tensor)


def require_model(folder: Path) -> None:
    """Raise ConfigError unless the folder holds a model; a name on the Hugging Face hub is not
    enough.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"no model in {folder}: config.json is missing",
            "give a folder in Hugging Face format; from the hub: hf download OWNER/NAME"
            " --local-dir FOLDER",
        )


def _no_reward(**_columns: object) -> NoReturn:
    raise NotImplementedError("rewards come from training batches")


def _arguments(settings: GrpoSettings, folder: str) -> GRPOConfig:
    return GRPOConfig(
        **_loss_arguments(settings),
        output_dir=folder,
        per_device_train_batch_size=2,
        num_generations=2,  # the least that TRL accepts; this and the batch size are not used
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        activation_checkpointing=False,  # TRL's default is on and costs a second forward pass
        disable_dropout=True,
        seed=settings.seed,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )


def _loss_arguments(settings: GrpoSettings) -> dict[str, Any]:
    return {
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "epsilon": settings.clip_low,
        "epsilon_high": settings.clip_high,
        "beta": 0.0,  # otherwise TRL loads a reference: see use_reference
        "use_bias_correction_kl": settings.unbiased_kl,
        "off_policy_mask_threshold": settings.off_policy_mask_threshold,
        "temperature": settings.temperature,
        # with None, TRL adds the auxiliary loss of the model's configuration
        "router_aux_loss_coef": 0.0,
    }


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    # TRL seeds them when it is built: an engine in the same process would then sample the same
    # numbers again.
    python = random.getstate()
    numpy = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
