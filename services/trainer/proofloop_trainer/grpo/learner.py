"""GRPO steps: a learner trains its model on a batch of rewarded answers and reports the step.

The old log-probabilities are the sampler's, from the records. Recomputing them would hide that the
model has changed since the answers were sampled.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from proofloop.errors import ProofloopError
from proofloop.schema.records import ModelRole, TrainingBatch
from proofloop_trainer import ranks
from proofloop_trainer.checkpoint import (
    Manifest,
    check_reference,
    has_manifest,
    load_optimizer,
    optimizer_tensors,
    read_manifest,
    verify_checkpoint,
    weights_digest,
    write_checkpoint,
)
from proofloop_trainer.grpo.batch import (
    Answer,
    Pass,
    advantages,
    answers_to_train,
    by_length,
    check_samples,
    collate,
    groups_without_signal,
    minibatches,
    rewards_by_group,
    share,
)
from proofloop_trainer.grpo.loss import Tally, open_trainer
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.memory import enough_for
from proofloop_trainer.ranks import Order

__all__ = ["GrpoLearner", "GrpoSettings", "StepReport", "advantages"]


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


@dataclass(frozen=True)
class Update:
    """One optimizer update over one minibatch."""

    tally: Tally
    grad_norm: float


_numbers = itertools.count(1)


class GrpoLearner:
    """A model in training. `steps` counts the batches; `parent_version` is the version that
    training started from.

    If several processes train together (`ranks`), each holds a part of the weights and computes a
    part of each step.
    """

    def __init__(
        self, model_folder: Path, settings: GrpoSettings, reference_folder: Path | None = None
    ) -> None:
        """`reference_folder` is the reference model of the KL term; by default `model_folder`."""
        reference = Path(reference_folder or model_folder)
        self.number = next(_numbers)
        weakref.finalize(self, ranks.closed.append, self.number)
        self._tell(
            "open",
            model=str(model_folder),
            settings=settings.model_dump(),
            reference=str(reference),
        )
        self.settings = settings
        self.trainer = open_trainer(Path(model_folder), settings, reference)
        self.model = self.trainer.model
        self.tokenizer = self.trainer.processing_class
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = 0
        self.role: ModelRole | None = None
        self.parent_version = (
            read_manifest(model_folder).version if has_manifest(model_folder) else None
        )
        self.reference_digest = weights_digest(reference) if settings.kl_coefficient else None
        ranks.meet()

    @classmethod
    def restore(
        cls, folder: Path, reference_folder: Path | None = None, tokens_per_pass: int | None = None
    ) -> GrpoLearner:
        """Continue from a checkpoint with the result of an uninterrupted training.

        With a KL term, the same reference must be given. `tokens_per_pass` may change: it limits
        memory and changes a step only by rounding. Raises ConfigError, CorruptObject.
        """
        manifest: Manifest = verify_checkpoint(folder)
        check_reference(manifest, reference_folder)
        changed = {} if tokens_per_pass is None else {"tokens_per_pass": tokens_per_pass}
        learner = cls(folder, manifest.settings.model_copy(update=changed), reference_folder)
        learner.resume(folder)
        return learner

    def resume(self, folder: Path) -> None:
        """Load the step count and the optimizer's state of the checkpoint that the weights came
        from.
        """
        self._tell("resume", folder=str(folder))
        manifest = read_manifest(folder)
        self.steps = manifest.step
        self.role = manifest.role
        with enough_for(f"resuming {folder}"):
            load_optimizer(self.model, self.optimizer, folder)
        ranks.meet()

    def whole(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The complete weights and optimizer state in the leading process; both are empty in the
        others.
        """
        self._tell("gather")
        weights = ranks.whole(self.model.state_dict().items())
        return weights, ranks.whole(optimizer_tensors(self.model, self.optimizer))

    def save(self, folder: Path) -> Manifest:
        """Write a checkpoint to `folder`. Safe to repeat after a failure."""
        weights, optimizer = self.whole()
        return write_checkpoint(
            folder,
            self.model,
            self.tokenizer,
            weights,
            optimizer,
            self.steps,
            parent_version=self.parent_version,
            role=self.role,
            settings=self.settings,
            reference_digest=self.reference_digest,
        )

    def step(self, batch: TrainingBatch) -> StepReport:
        """Train on one batch. Raises ProofloopError if the batch is invalid or the loss is not
        finite.

        An invalid batch changes nothing. After any other error, open the learner again from its
        last checkpoint: some minibatches may have changed its weights.
        """
        started = time.perf_counter()
        check_samples(batch.samples, self.model.config.vocab_size)
        self._tell("step", batch=batch)
        with enough_for(f"step {self.steps + 1}, passes of {self.settings.tokens_per_pass} tokens"):
            answers = self._with_reference(answers_to_train(batch.samples, self.settings.truncated))
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.step_size(self.steps + 1)
            updates = [self._update(minibatch) for minibatch in self._minibatches(answers)]
        self.optimizer.zero_grad()  # free the gradients while the model waits for its next batch
        self.steps += 1
        self.role = batch.role
        return self._report(batch, updates, time.perf_counter() - started)

    def _tell(self, call: Any, **arguments: Any) -> None:
        """Make the other processes do the same call on their parts of this learner."""
        if ranks.count() > 1:
            ranks.tell(Order(call=call, learner=self.number, arguments=arguments))

    def _minibatches(self, answers: Sequence[Answer]) -> Iterator[list[Answer]]:
        for epoch in range(self.settings.epochs):
            seed_parts = (self.settings.seed, "grpo", self.steps, epoch)
            yield from minibatches(answers, self.settings.minibatch_sequences, *seed_parts)

    def _with_reference(self, answers: Sequence[Answer]) -> list[Answer]:
        if not self.settings.kl_coefficient:
            return list(answers)
        ordered = by_length(answers)
        mine: list[Tensor] = []
        for part in self._share(ordered):
            mine += self._reference(part or ordered[:1])[
                : len(part)
            ]  # every process takes part in every pass
        rows = ranks.collected(mine, [len(answer.completion_ids_C) for answer in ordered])
        return [
            replace(answer, reference_logprobs_C=row_C)
            for answer, row_C in zip(ordered, rows, strict=True)
        ]

    def _reference(self, answers: Sequence[Answer]) -> list[Tensor]:
        logprobs_BC = self.trainer.reference_logprobs_BC(self._collate(answers)).cpu()
        return [
            row_C[: len(answer.completion_ids_C)]
            for answer, row_C in zip(answers, logprobs_BC, strict=True)
        ]

    def _share(self, answers: Sequence[Answer]) -> list[list[Answer]]:
        return share(answers, self.settings.tokens_per_pass)

    def _collate(self, answers: Sequence[Answer]) -> Pass:
        return collate(answers, self.tokenizer.pad_token_id, ranks.device())

    def _update(self, minibatch: Sequence[Answer]) -> Update:
        self.optimizer.zero_grad()
        mine = sum(
            (self._backward(part, minibatch) for part in self._share(minibatch)), start=Tally()
        )
        tally = Tally(*ranks.summed(astuple(mine)))
        norm = clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        grad_norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
        if not (isfinite(tally.loss) and isfinite(grad_norm)):
            raise ProofloopError(
                f"step {self.steps + 1}: loss {tally.loss / len(minibatch)} and gradient norm"
                f" {grad_norm} "
                f"over {len(minibatch)} sequences; training stops, and the last checkpoint is"
                " unchanged"
            )
        self.optimizer.step()
        return Update(tally, grad_norm)

    def _backward(self, part: Sequence[Answer], minibatch: Sequence[Answer]) -> Tally:
        loss, tally = self.trainer.pass_loss(self._collate(part or by_length(minibatch)[:1]))
        # A pass's mean loss times its share of the sequences: the sum over the passes is the
        # minibatch's mean, however it was split. FSDP averages gradients over processes. An empty
        # pass joins the collective calls and adds 0.
        (loss * (len(part) / len(minibatch) * ranks.count())).backward()
        return tally if part else Tally()

    def _report(
        self, batch: TrainingBatch, updates: Sequence[Update], seconds: float
    ) -> StepReport:
        samples = batch.samples
        tally = sum((update.tally for update in updates), start=Tally())
        sequences = max(tally.sequences, 1)
        tokens = max(tally.tokens, 1)
        return StepReport(
            step=self.steps,
            loss=tally.loss / sequences,
            policy_loss=(tally.loss - self.settings.kl_coefficient * tally.kl) / sequences,
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
