"""The GRPO loss of one pass, with the corrections of DeepSeek-V3.2 for answers of an older model.

Source: DeepSeek-V3.2 report (arXiv 2512.02556), section 3.1. A step maximizes eq. (8), averaged
over an answer's tokens and then over answers:

    min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) M - kl_coefficient KL

The old log-probabilities in r are the sampler's, from the records. The caller computes the new ones
(`policy`), the advantages A (`batch`) and the reference's log-probabilities in KL.

Legend: B sequences, T positions of prompt and completion, 1 a dimension to broadcast.
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
    ratio_BT: Tensor
    kl_BT: Tensor  # 0 without a KL term
    is_clipped_BT: Tensor
    is_kept_B1: Tensor


def grpo_loss(logprobs_BT: Tensor, inputs: Pass, settings: GrpoSettings) -> PassLoss:
    """The negative of eq. (8). `logprobs_BT` are the trained model's, with a gradient."""
    advantages_B1 = inputs.advantages_B[:, None]
    ratio_BT = torch.exp(logprobs_BT - inputs.sampler_logprobs_BT)  # eq. (6)
    kl_BT = _kl_BT(logprobs_BT, ratio_BT, inputs, settings)
    is_kept_B1 = _is_kept_B1(logprobs_BT.detach(), inputs, settings)
    gain_BT = _clipped_gain_BT(ratio_BT, advantages_B1, settings)
    loss_BT = -gain_BT * is_kept_B1 + settings.kl_coefficient * kl_BT
    return PassLoss(
        mean=mean_over_tokens_B(loss_BT, inputs.completion_mask_BT).mean(),
        ratio_BT=ratio_BT.detach(),
        kl_BT=kl_BT.detach(),
        is_clipped_BT=_is_clipped_BT(ratio_BT.detach(), advantages_B1, settings),
        is_kept_B1=is_kept_B1,
    )


def _clipped_gain_BT(ratio_BT: Tensor, advantages_B1: Tensor, settings: GrpoSettings) -> Tensor:
    """min(r A, clip(r) A), eq. (5)."""
    clipped_BT = ratio_BT.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    return torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)


def _is_clipped_BT(ratio_BT: Tensor, advantages_B1: Tensor, settings: GrpoSettings) -> Tensor:
    """Whether clipping removed a token's gradient."""
    is_low_BT = (ratio_BT < 1 - settings.clip_low) & (advantages_B1 < 0)
    is_high_BT = (ratio_BT > 1 + settings.clip_high) & (advantages_B1 > 0)
    return is_low_BT | is_high_BT


def _kl_BT(logprobs_BT: Tensor, ratio_BT: Tensor, inputs: Pass, settings: GrpoSettings) -> Tensor:
    """The KL divergence to the reference, estimated from the sampled token.

    Eq. (7) multiplies Schulman's estimator by r: its gradient is then unbiased although the tokens
    are the sampler's.
    """
    reference_BT = inputs.reference_logprobs_BT
    if reference_BT is None:
        return torch.zeros_like(ratio_BT)
    kl_BT = torch.exp(reference_BT - logprobs_BT) - (reference_BT - logprobs_BT) - 1
    return kl_BT * ratio_BT if settings.unbiased_kl else kl_BT


def _is_kept_B1(logprobs_BT: Tensor, inputs: Pass, settings: GrpoSettings) -> Tensor:
    """M of eq. (9): false for a bad answer that the model has become unlikely to write."""
    is_good_B1 = inputs.advantages_B[:, None] >= 0
    delta = settings.off_policy_mask_threshold
    if delta is None:
        return torch.ones_like(is_good_B1)
    drift_BT = inputs.sampler_logprobs_BT - logprobs_BT
    drift_B1 = mean_over_tokens_B(drift_BT, inputs.completion_mask_BT)[:, None]
    return is_good_B1 | (drift_B1 <= delta)


def mean_over_tokens_B(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over each sequence's real tokens. Empty answers are left out before (`batch`)."""
    return (values_BT * mask_BT).sum(-1) / mask_BT.sum(-1)
