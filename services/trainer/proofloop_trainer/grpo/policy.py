"""Loads causal language models for training, and scores answers with them.

Models get TRL's fused head: it computes log-probabilities tile by tile, so that memory never holds
the logits of a pass (tokens times vocabulary). It changes only calls with `fused_lm_head=True`.
docs/decisions/grpo-loss.md compares it with a head of our own.

Legend: B sequences, P prompt positions, C completion positions, T = P + C.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from proofloop_trainer.grpo.batch import Pass

IGNORED = -100
"""The label of a token that is not scored."""


@dataclass(frozen=True)
class Scores:
    """A model's log-probability of each completion token, and the entropy at its position in nats.
    Both are 0 on padding.
    """

    logprobs_BC: Tensor
    entropies_BC: Tensor


def load_model(folder: Path, temperature: float = 1.0) -> PreTrainedModel:
    """Load a model in 32 bits with a fused head, without dropout: steps can be repeated exactly."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    )
    _disable_dropout(model)
    add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy"))
    return model


def load_reference(folder: Path, temperature: float = 1.0) -> PreTrainedModel:
    """Load a model that only scores and is never trained."""
    model = load_model(folder, temperature)
    model.eval()
    model.requires_grad_(False)
    return model


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            vars(module)["attention_dropout"] = 0.0  # transformers' attention calls a function


def score(model: PreTrainedModel, inputs: Pass) -> Scores:
    """Score the pass's answers in one forward pass. Gradients flow to the log-probabilities."""
    ids_BT = torch.cat([inputs.prompt_ids_BP, inputs.completion_ids_BC], dim=1)
    mask_BT = torch.cat([inputs.prompt_mask_BP, inputs.completion_mask_BC], dim=1)
    completion = inputs.completion_ids_BC.size(1)
    labels_BT = ids_BT.masked_fill(mask_BT == 0, IGNORED)
    labels_BT[:, :-completion] = IGNORED
    found = model(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=_positions_BT(model, mask_BT),
        labels=labels_BT,
        fused_lm_head=True,
    )
    return Scores(found.log_probs[:, -completion:], found.entropy[:, -completion:].detach())


def _positions_BT(model: PreTrainedModel, mask_BT: Tensor) -> Tensor | None:
    """The positions without the padding, as the sampler counts them: learned positions would
    otherwise depend on the pass's longest prompt.

    None for rotary positions. They are relative, so that a shift changes their scores by rounding
    alone.
    """
    if any("RotaryEmbedding" in type(module).__name__ for module in model.modules()):
        return None
    return (mask_BT.cumsum(-1) - 1).clamp(min=0)
