"""The GRPO loss of one pass, with the corrections of DeepSeek-V3.2 for answers of an older model.

Source: DeepSeek-V3.2 report (arXiv 2512.02556), section 3.1. A step maximizes eq. (8), averaged
over an answer's tokens and then over answers:

    min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) M - kl_coefficient KL

The old log-probabilities in r are the sampler's, from the records. The caller computes the new ones
(`policy`), the advantages A (`batch`) and the reference's log-probabilities in KL.

Legend: B sequences, C completion positions, 1 a dimension to broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proofloop_trainer.grpo.batch import Pass
from proofloop_trainer.grpo.settings import GrpoSettings


@dataclass(frozen=True)
class PassLoss:
    """The mean loss over a pass's sequences, for `backward`, and its terms, detached, for the
    report.
    """

    mean: Tensor
    ratio_BC: Tensor
    kl_BC: Tensor  # 0 without a KL term
    is_clipped_BC: Tensor
    is_kept_B1: Tensor


def grpo_loss(logprobs_BC: Tensor, inputs: Pass, settings: GrpoSettings) -> PassLoss:
    """The negative of eq. (8). `logprobs_BC` are the trained model's, with a gradient."""
    advantages_B1 = inputs.advantages_B[:, None]
    ratio_BC = torch.exp(logprobs_BC - inputs.sampler_logprobs_BC)  # eq. (6)
    kl_BC = _kl_BC(logprobs_BC, ratio_BC, inputs, settings)
    is_kept_B1 = _is_kept_B1(logprobs_BC.detach(), inputs, settings)
    gain_BC = _clipped_gain_BC(ratio_BC, advantages_B1, settings)
    loss_BC = -gain_BC * is_kept_B1 + settings.kl_coefficient * kl_BC
    return PassLoss(
        mean=mean_over_tokens_B(loss_BC, inputs.completion_mask_BC).mean(),
        ratio_BC=ratio_BC.detach(),
        kl_BC=kl_BC.detach(),
        is_clipped_BC=_is_clipped_BC(ratio_BC.detach(), advantages_B1, settings),
        is_kept_B1=is_kept_B1,
    )


def _clipped_gain_BC(ratio_BC: Tensor, advantages_B1: Tensor, settings: GrpoSettings) -> Tensor:
    """min(r A, clip(r) A), eq. (5)."""
    clipped_BC = ratio_BC.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    return torch.minimum(ratio_BC * advantages_B1, clipped_BC * advantages_B1)


def _is_clipped_BC(ratio_BC: Tensor, advantages_B1: Tensor, settings: GrpoSettings) -> Tensor:
    """Whether clipping removed a token's gradient."""
    is_low_BC = (ratio_BC < 1 - settings.clip_low) & (advantages_B1 < 0)
    is_high_BC = (ratio_BC > 1 + settings.clip_high) & (advantages_B1 > 0)
    return is_low_BC | is_high_BC


def _kl_BC(logprobs_BC: Tensor, ratio_BC: Tensor, inputs: Pass, settings: GrpoSettings) -> Tensor:
    """The KL divergence to the reference, estimated from the sampled token.

    Eq. (7) multiplies Schulman's estimator by r: its gradient is then unbiased although the tokens
    are the sampler's.
    """
    reference_BC = inputs.reference_logprobs_BC
    if reference_BC is None:
        return torch.zeros_like(ratio_BC)
    kl_BC = torch.exp(reference_BC - logprobs_BC) - (reference_BC - logprobs_BC) - 1
    return kl_BC * ratio_BC if settings.unbiased_kl else kl_BC


def _is_kept_B1(logprobs_BC: Tensor, inputs: Pass, settings: GrpoSettings) -> Tensor:
    """M of eq. (9): false for a bad answer that the model has become unlikely to write."""
    is_good_B1 = inputs.advantages_B[:, None] >= 0
    delta = settings.off_policy_mask_threshold
    if delta is None:
        return torch.ones_like(is_good_B1)
    drift_BC = inputs.sampler_logprobs_BC - logprobs_BC
    drift_B1 = mean_over_tokens_B(drift_BC, inputs.completion_mask_BC)[:, None]
    return is_good_B1 | (drift_B1 <= delta)


def mean_over_tokens_B(values_BC: Tensor, mask_BC: Tensor) -> Tensor:
    """The mean over each sequence's real tokens. Empty answers are left out before (`batch`)."""
    return (values_BC * mask_BC).sum(-1) / mask_BC.sum(-1)
