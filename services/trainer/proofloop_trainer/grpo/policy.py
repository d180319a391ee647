"""Loads causal language models for training, and scores answers with them.

Models get TRL's fused head: it computes log-probabilities tile by tile, so that memory never holds
the logits of a pass (tokens times vocabulary). It changes only calls with `fused_lm_head=True`.
docs/decisions/grpo-loss.md compares it with a head of our own.

Legend: B sequences, T positions of prompt and completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from proofloop.errors import ConfigError
from proofloop_trainer.checkpoint import reading_model
from proofloop_trainer.grpo.batch import Pass

IGNORED = -100
"""The label of a token that is not scored."""


@dataclass(frozen=True)
class Scores:
    """A model's log-probability of each completion token, and the entropy at its position in nats.
    Both are 0 on other tokens.
    """

    logprobs_BT: Tensor
    entropies_BT: Tensor


def load_model(
    folder: Path, temperature: float = 1.0, dtype: torch.dtype | None = torch.float32
) -> PreTrainedModel:
    """Load a model with a fused head, in evaluation mode: it scores as it samples, and steps can be
    repeated exactly. The training mode would add dropout, and noise in some routers. Without
    `dtype` the weights keep their precision.

    Raises ConfigError if it cannot be loaded, or if the folder lacks weights: transformers would
    fill them with random numbers.
    """
    model: PreTrainedModel
    with reading_model(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", use_safetensors=True, output_loading_info=True
        )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"the model in {folder} lacks {len(missing)} weights: {', '.join(missing[:3])}",
            "give a complete folder: copy or download it again",
        )
    add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy"))
    return model


def load_reference(folder: Path, temperature: float = 1.0) -> PreTrainedModel:
    """Load a model that only scores and is never trained."""
    model = load_model(folder, temperature)
    model.requires_grad_(False)
    return model


def score(model: PreTrainedModel, inputs: Pass) -> Scores:
    """Score the pass's answers in one forward pass. Gradients flow to the log-probabilities."""
    # without an attention mask: attention is causal, and the padding comes last
    labels_BT = inputs.ids_BT.masked_fill(inputs.completion_mask_BT == 0, IGNORED)
    found = model(input_ids=inputs.ids_BT, labels=labels_BT, fused_lm_head=True)
    return Scores(_from_first(found.log_probs), _from_first(found.entropy.detach()))


def _from_first(values: Tensor) -> Tensor:
    """Values of all tokens, from those of all but the first, which the model does not predict."""
    return functional.pad(values, (1, 0))
