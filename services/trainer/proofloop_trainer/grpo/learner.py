"""GRPO steps: a learner trains its model on a batch of rewarded answers and reports the step.

The old log-probabilities are the sampler's, from the records. Recomputing them would hide that the
model has changed since the answers were sampled.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import astuple, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from proofloop.config.run_file.training import Lora
from proofloop.schema.records import ModelRole, TrainingBatch
from proofloop.store.model_folders import require_model
from proofloop_trainer import ranks
from proofloop_trainer.adapters import (
    as_reference,
    attach_reference,
    load_trained,
    trained_weights,
)
from proofloop_trainer.checkpoint import (
    Manifest,
    check_reference,
    has_manifest,
    load_optimizer,
    optimizer_tensors,
    read_manifest,
    reading_model,
    verify_checkpoint,
    weights_digest,
    write_checkpoint,
)
from proofloop_trainer.grpo.batch import (
    Answer,
    answers_to_train,
    by_length,
    check_samples,
    collate,
    minibatches,
    share,
)
from proofloop_trainer.grpo.loss import grpo_loss
from proofloop_trainer.grpo.policy import load_reference, score
from proofloop_trainer.grpo.report import StepReport, Tally, Update, report_of, tally_of
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.memory import enough_for, make_room
from proofloop_trainer.ranks import Order
from proofloop_trainer.replay import Replay
from proofloop_trainer.updates import update


class GrpoLearner:
    """A model in training. `steps` counts the batches; `parent_version` is the version that
    training started from.

    Close a learner after use, or use it in a `with` statement: until then its model stays in
    memory. If several processes train together (`ranks`), each holds a part of the weights and
    computes a part of each step.
    """

    def __init__(
        self,
        model_folder: Path,
        settings: GrpoSettings,
        reference_folder: Path | None = None,
        lora: Lora | None = None,
    ) -> None:
        """`reference_folder` is the reference model of the KL term; by default `model_folder`. With
        `lora` an adapter is trained; an adapter in `model_folder` always is.
        """
        reference = Path(reference_folder or model_folder)
        self._id = uuid.uuid4().hex
        self._broadcast(
            "open",
            model=str(model_folder),
            settings=settings.model_dump(),
            reference=str(reference),
            lora=lora and lora.model_dump(),
        )
        self.settings = settings
        self._open(Path(model_folder), reference, lora)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = 0
        self.role: ModelRole | None = None
        self.parent_version = (
            read_manifest(model_folder).version if has_manifest(model_folder) else None
        )
        self.reference_digest = weights_digest(reference) if settings.kl_coefficient else None
        ranks.barrier()

    def _open(self, folder: Path, reference: Path, lora: Lora | None) -> None:
        """Load the model, and the reference if there is a KL term.

        Raises ConfigError if a folder holds no complete model, ProofloopError if the memory is too
        small.
        """
        ranks.check_launch()
        require_model(folder)
        require_model(reference)
        disable_progress_bar()
        make_room()
        temperature = self.settings.temperature
        with enough_for(f"opening {folder}"):
            with reading_model(folder):
                self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = load_trained(folder, lora, self.settings.seed, temperature)
            self.replay = Replay(self.model)
            self.reference = None
            if self.settings.kl_coefficient and attach_reference(self.model, folder, reference):
                self.reference = self.model
            # Placed before the reference is loaded: a process holds one unsharded model at a time.
            ranks.place(self.model)
            if self.settings.kl_coefficient and self.reference is None:
                self.reference = load_reference(reference, temperature)
                ranks.place(self.reference)
        self.is_open = True

    def close(self) -> None:
        """Free the models in all processes. Safe to call twice, and after an error."""
        if not self.is_open:
            return
        self.is_open = False
        if not ranks.is_broken():
            self._broadcast("close")
        del self.model, self.reference, self.replay, self.optimizer
        make_room()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
        """Load the state beside the weights, from the checkpoint that they came from."""
        self._broadcast("resume", folder=str(folder))
        manifest = read_manifest(folder)
        self.steps = manifest.step
        self.role = manifest.role
        self.parent_version = manifest.parent_version
        with enough_for(f"resuming {folder}"):
            load_optimizer(self.model, self.optimizer, folder)
        ranks.barrier()

    def whole(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The complete weights and optimizer state in the leading process; both are empty in the
        others.
        """
        self._broadcast("gather")
        with enough_for("gathering the weights"):
            weights = ranks.full_tensors(trained_weights(self.model))
            return weights, ranks.full_tensors(optimizer_tensors(self.model, self.optimizer))

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
        """Train on one batch. Raises ProofloopError if the batch is invalid, and Reject if the loss
        is not finite.

        An invalid batch changes nothing. After any other error, open the learner again from its
        last checkpoint: some minibatches may have changed its weights.
        """
        started = time.perf_counter()
        check_samples(batch.samples, self.model.config.get_text_config().vocab_size)
        self._broadcast("step", batch=batch)
        with enough_for(f"step {self.steps + 1}, passes of {self.settings.tokens_per_pass} tokens"):
            answers = self._with_reference(answers_to_train(batch.samples, self.settings.truncated))
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.step_size(self.steps + 1)
            updates = [self._update(minibatch) for minibatch in self._minibatches(answers)]
        self.optimizer.zero_grad()  # free the gradients while the model waits for its next batch
        self.steps += 1
        self.role = batch.role
        seconds = time.perf_counter() - started
        return report_of(self.steps, batch, updates, self.settings.kl_coefficient, seconds)

    def _broadcast(self, call: Any, **arguments: Any) -> None:
        """Make the other processes do the same call on their parts of this learner."""
        if ranks.count() > 1:
            ranks.broadcast(Order(call=call, learner=self._id, arguments=arguments))

    def _minibatches(self, answers: Sequence[Answer]) -> Iterator[list[Answer]]:
        for epoch in range(self.settings.epochs):
            seed_parts = (self.settings.seed, "grpo", self.steps, epoch)
            yield from minibatches(answers, self.settings.minibatch_sequences, *seed_parts)

    def _with_reference(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with the reference's log-probabilities, if there is a KL term."""
        if self.reference is None:
            return list(answers)
        ordered = by_length(answers)
        mine: list[Tensor] = []
        with as_reference(self.model) if self.reference is self.model else nullcontext():
            for part in self._share(ordered):
                # Every process takes part in every pass: an empty one scores an answer for nothing.
                scored = self._reference_logprobs(self.reference, part or ordered[:1])
                mine += scored[: len(part)]
        rows = ranks.gathered(mine, [len(answer.completion_ids_C) for answer in ordered])
        return [
            replace(answer, reference_logprobs_C=row_C)
            for answer, row_C in zip(ordered, rows, strict=True)
        ]

    @torch.no_grad()
    def _reference_logprobs(
        self, reference: PreTrainedModel, answers: Sequence[Answer]
    ) -> list[Tensor]:
        logprobs_BT = score(reference, collate(answers)).logprobs_BT.cpu()
        return [
            row_T[len(answer.prompt_ids_P) : answer.length]
            for answer, row_T in zip(answers, logprobs_BT, strict=True)
        ]

    def _share(self, answers: Sequence[Answer]) -> list[list[Answer]]:
        return share(answers, self.settings.tokens_per_pass)

    def _update(self, minibatch: Sequence[Answer]) -> Update:
        self.optimizer.zero_grad()
        mine = sum(
            (self._backward(part, minibatch) for part in self._share(minibatch)), start=Tally()
        )
        tally = Tally(*ranks.summed(astuple(mine)))
        norm = update(
            self.model,
            self.optimizer,
            tally.loss / len(minibatch),
            max_norm=self.settings.max_grad_norm,
            what=f"step {self.steps + 1}, {len(minibatch)} sequences",
        )
        return Update(tally, norm)

    def _backward(self, part: Sequence[Answer], minibatch: Sequence[Answer]) -> Tally:
        inputs = collate(part or by_length(minibatch)[:1])
        self.replay.use(inputs.experts_BTE if self.settings.replay_routing else None)
        scores = score(self.model, inputs)
        loss = grpo_loss(scores.logprobs_BT, inputs, self.settings)
        # A pass's mean loss times its share of the sequences: the sum over the passes is the
        # minibatch's mean, however it was split. FSDP averages gradients over processes. An empty
        # pass joins the collective calls and adds 0.
        (loss.mean * (len(part) / len(minibatch) * ranks.count())).backward()
        return tally_of(loss, scores.entropies_BT, inputs) if part else Tally()
