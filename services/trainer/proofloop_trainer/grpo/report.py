"""The figures of a GRPO step: sums over passes and processes, then means for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import fmean, pstdev

from torch import Tensor

from proofloop.schema.records import TrainingBatch
from proofloop_trainer.grpo.batch import Pass, advantages, groups_without_signal, rewards_by_group
from proofloop_trainer.grpo.loss import PassLoss, mean_over_tokens_B


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
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Tally(*(mine + theirs for mine, theirs in pairs))


@dataclass(frozen=True)
class Update:
    """One optimizer update over one minibatch. `grad_norm` is the norm before clipping."""

    tally: Tally
    grad_norm: float


@dataclass(frozen=True)
class StepReport:
    """The figures of one step. Losses, ratio and shares of tokens are means over all its epochs."""

    step: int  # counted from 1
    loss: float  # policy_loss + kl_coefficient * kl
    policy_loss: float
    # to the reference: mean over a sequence's tokens, then over sequences, as in the loss
    kl: float
    entropy: float  # nats per token
    mean_ratio: float
    clip_share: float  # of tokens whose gradient was removed by clipping
    off_policy_share: float  # of sequences dropped by the off-policy mask
    grad_norm: float  # before clipping, mean over updates
    updates: int  # 0 when no group had a signal: the model is unchanged and the figures above are 0
    mean_reward: float
    reward_std: float
    advantage_share: float  # of samples with a nonzero advantage
    groups: int
    groups_without_signal: int
    truncated_share: float
    completion_length: float  # mean, in tokens
    tokens: int  # completion tokens trained on, counted once per epoch
    seconds: float


def tally_of(loss: PassLoss, entropies_BT: Tensor, inputs: Pass) -> Tally:
    """The sums of one pass."""
    mask_BT = inputs.completion_mask_BT
    sequences = len(inputs.advantages_B)
    return Tally(
        sequences=sequences,
        tokens=mask_BT.sum().item(),
        loss=loss.mean.item() * sequences,
        kl=mean_over_tokens_B(loss.kl_BT, mask_BT).sum().item(),
        off_policy=sequences - loss.is_kept_B1.sum().item(),
        ratio=(loss.ratio_BT * mask_BT).sum().item(),
        clipped=(loss.is_clipped_BT * mask_BT).sum().item(),
        entropy=(entropies_BT * mask_BT).sum().item(),
    )


def report_of(
    step: int,
    batch: TrainingBatch,
    updates: Sequence[Update],
    kl_coefficient: float,
    seconds: float,
) -> StepReport:
    """The report of a step that made these updates on the batch."""
    samples = batch.samples
    tally = sum((update.tally for update in updates), start=Tally())
    sequences = max(tally.sequences, 1)
    tokens = max(tally.tokens, 1)
    return StepReport(
        step=step,
        loss=tally.loss / sequences,
        policy_loss=(tally.loss - kl_coefficient * tally.kl) / sequences,
        kl=tally.kl / sequences,
        entropy=tally.entropy / tokens,
        mean_ratio=tally.ratio / tokens,
        clip_share=tally.clipped / tokens,
        off_policy_share=tally.off_policy / sequences,
        grad_norm=fmean(update.grad_norm for update in updates) if updates else 0.0,
        updates=len(updates),
        mean_reward=fmean(sample.reward for sample in samples),
        reward_std=pstdev(sample.reward for sample in samples),
        advantage_share=fmean(advantage != 0 for advantage in advantages(samples)),
        groups=len(rewards_by_group(samples)),
        groups_without_signal=len(groups_without_signal(samples)),
        truncated_share=fmean(sample.truncated for sample in samples),
        completion_length=fmean(len(sample.tokens.completion_ids) for sample in samples),
        tokens=int(tally.tokens),
        seconds=seconds,
    )
