"""Supervised steps on prompts with answers to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import ceil
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from proofloop.config.run_file.training import Lora
from proofloop.schema.records import Record, Tokens
from proofloop_trainer import ranks
from proofloop_trainer.adapters import load_trained, trained_weights
from proofloop_trainer.checkpoint import save_model
from proofloop_trainer.grpo.batch import Answer, collate, minibatches, share
from proofloop_trainer.grpo.policy import score
from proofloop_trainer.memory import enough_for, make_room
from proofloop_trainer.ranks import Order
from proofloop_trainer.updates import update


class Schedule(Record):
    """The number of updates and their sizes. `steps` counts updates; without it there are whole
    `epochs`.
    """

    epochs: int = 1
    steps: int | None = None
    batch: int = 64
    learning_rate: float = 2e-4
    tokens_per_pass: int = 16384

    @classmethod
    def of(cls, section: BaseModel) -> Schedule:
        """The schedule of a section of a run file or a curriculum file."""
        return cls.model_validate(section.model_dump())

    def updates(self, answers: int) -> int:
        """The number of updates on so many answers."""
        return self.steps or self.epochs * ceil(answers / self.batch)

    def minibatches(self, answers: Sequence[Answer], seed: int) -> Iterator[list[Answer]]:
        """The minibatches of all updates; each epoch shuffles the answers anew."""
        if not answers:
            return iter(())
        endless = (
            cut
            for epoch in count()
            for cut in minibatches(answers, self.batch, seed, "supervised", epoch)
        )
        return islice(endless, self.updates(len(answers)))


@dataclass(frozen=True)
class SupervisedStep:
    """One update: its number, counted from 1, of `total`; `loss` is the mean over answer tokens."""

    number: int
    total: int
    loss: float
    learning_rate: float
    tokens: int


def answer_to_learn(tokens: Tokens) -> Answer:
    """Tokens as tensors, without what only GRPO uses."""
    return Answer(
        prompt_ids_P=torch.tensor(tokens.prompt_ids),
        completion_ids_C=torch.tensor(tokens.completion_ids),
        sampler_logprobs_C=torch.zeros(len(tokens.completion_ids)),
        advantage=0.0,
    )


def fine_tune(
    start: Path,
    out: Path,
    answers: Sequence[Answer],
    schedule: Schedule,
    seed: int,
    lora: Lora | None = None,
    before_step: Callable[[], None] = lambda: None,
    after_step: Callable[[SupervisedStep], None] = lambda step: None,
) -> None:
    """Train the model in `start` on the answers and write it to `out` in 32 bits. With `lora` an
    adapter is trained; an adapter in `start` always is.

    `before_step` may raise to stop the training. The learning rate falls linearly to a tenth. The
    same input gives the same weights. Raises Reject for a loss that is not finite.
    """
    ranks.check_launch()
    _broadcast(start, out, answers, schedule, seed, lora)
    disable_progress_bar()
    make_room()
    with enough_for(f"supervised steps from {start}, passes of {schedule.tokens_per_pass} tokens"):
        model = load_trained(start, lora, seed)
        ranks.place(model)
        _train(model, answers, schedule, seed, before_step, after_step)
    weights = ranks.full_tensors(trained_weights(model))
    if ranks.rank() == 0:
        save_model(out, model, AutoTokenizer.from_pretrained(start), weights)


def _broadcast(
    start: Path,
    out: Path,
    answers: Sequence[Answer],
    schedule: Schedule,
    seed: int,
    lora: Lora | None,
) -> None:
    """Make the other processes call `fine_tune` too."""
    if ranks.count() == 1:
        return
    rows = [(row.prompt_ids_P.tolist(), row.completion_ids_C.tolist()) for row in answers]
    arguments = {
        "start": str(start),
        "out": str(out),
        "answers": rows,
        "schedule": schedule.model_dump(),
        "seed": seed,
        "lora": lora and lora.model_dump(),
    }
    ranks.broadcast(Order(call="fine_tune", arguments=arguments))


def _train(
    model: PreTrainedModel,
    answers: Sequence[Answer],
    schedule: Schedule,
    seed: int,
    before_step: Callable[[], None],
    after_step: Callable[[SupervisedStep], None],
) -> None:
    rate, total = schedule.learning_rate, schedule.updates(len(answers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for done, cut in enumerate(schedule.minibatches(answers, seed)):
        before_step()
        now = rate * (1 - 0.9 * done / total)
        optimizer.param_groups[0]["lr"] = now
        optimizer.zero_grad()
        mine = sum(_backward(model, part, cut) for part in share(cut, schedule.tokens_per_pass))
        (loss,) = ranks.summed([mine])
        update(model, optimizer, loss, max_norm=1.0, what=f"supervised step {done + 1}")
        after_step(SupervisedStep(done + 1, total, loss, now, _tokens(cut)))


def _backward(model: PreTrainedModel, part: Sequence[Answer], cut: Sequence[Answer]) -> float:
    """Backpropagate a pass's part of the minibatch's loss, and return this part. An empty pass
    joins the collective calls with weight 0.
    """
    weight = _tokens(part) / _tokens(cut)
    loss = supervised_loss(model, part or cut[:1])
    # FSDP averages gradients over the processes.
    (loss * (weight * ranks.count())).backward()
    return loss.item() * weight


def _tokens(answers: Sequence[Answer]) -> int:
    return sum(len(answer.completion_ids_C) for answer in answers)


def supervised_loss(model: PreTrainedModel, answers: Sequence[Answer]) -> Tensor:
    """The mean cross entropy of the answers' tokens; prompts have no loss.

    The model has TRL's fused head, which never holds all logits (tokens times vocabulary) of a pass
    at once.
    """
    scores = score(model, collate(answers))
    return -scores.logprobs_BT.sum() / _tokens(answers)
