"""Supervised steps on sampled answers, for rejection fine-tuning on the answers with the highest
rewards.

Shapes: B sequences, T tokens (padded on the right).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from proofloop.config.curriculum_file import Consolidate
from proofloop.schema.records import Tokens
from proofloop_trainer import ranks
from proofloop_trainer.checkpoint import SHARD_BYTES
from proofloop_trainer.grpo.batch import Answer, answer_of, minibatches, share
from proofloop_trainer.grpo.policy import IGNORED, load_model
from proofloop_trainer.memory import enough_for, make_room
from proofloop_trainer.ranks import Order


def fine_tune(
    start: Path,
    out: Path,
    answers: Sequence[Tokens],
    how: Consolidate,
    seed: int,
    before_step: Callable[[], None] = lambda: None,
) -> int:
    """Train the model in `start` on the answers and write it to `out` in 32 bits; returns the
    number of updates.

    `before_step` may raise to stop the training. The learning rate falls linearly to a tenth. The
    same input gives the same weights.
    """
    ranks.check_launch()
    arguments = {
        "start": str(start),
        "out": str(out),
        "answers": [answer.model_dump() for answer in answers],
        "how": how.model_dump(),
        "seed": seed,
    }
    ranks.broadcast(Order(call="fine_tune", arguments=arguments))
    disable_progress_bar()
    make_room()
    with enough_for(f"supervised steps from {start}, passes of {how.tokens_per_pass} tokens"):
        model, updates = _tuned(start, answers, how, seed, before_step)
    weights = ranks.full_tensors(model.state_dict().items())
    if ranks.rank() == 0:
        model.save_pretrained(out, state_dict=weights, max_shard_size=SHARD_BYTES)
        AutoTokenizer.from_pretrained(start).save_pretrained(out)
    return updates


def _tuned(
    start: Path,
    answers: Sequence[Tokens],
    how: Consolidate,
    seed: int,
    before_step: Callable[[], None],
) -> tuple[PreTrainedModel, int]:
    """The trained model and the number of updates."""
    model = load_model(start).train()
    ranks.place(model)
    learnt = [answer_of(tokens) for tokens in answers]
    cuts = [
        cut
        for epoch in range(how.epochs)
        for cut in minibatches(learnt, how.batch, seed, "supervised", epoch)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.learning_rate, weight_decay=0.0)
    for done, cut in enumerate(cuts):
        before_step()
        optimizer.param_groups[0]["lr"] = how.learning_rate * (1 - 0.9 * done / len(cuts))
        optimizer.zero_grad()
        for part in share(cut, how.tokens_per_pass):
            _backward(model, part, cut)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, len(cuts)


def _backward(model: PreTrainedModel, part: Sequence[Answer], cut: Sequence[Answer]) -> None:
    """Backpropagate a pass's part of the minibatch's loss. An empty pass joins the collective calls
    with weight 0.
    """
    # FSDP averages gradients over the processes.
    weight = _tokens(part) / _tokens(cut) * ranks.count()
    (supervised_loss(model, part or cut[:1]) * weight).backward()


def _tokens(answers: Sequence[Answer]) -> int:
    return sum(len(answer.completion_ids_C) for answer in answers)


def supervised_loss(model: PreTrainedModel, answers: Sequence[Answer]) -> Tensor:
    """The mean cross entropy of the answers' tokens; prompts have no loss.

    The model has TRL's fused head, which never holds all logits (tokens times vocabulary) of a pass
    at once.
    """
    rows = [torch.cat((answer.prompt_ids_P, answer.completion_ids_C)) for answer in answers]
    tokens_BT = pad_sequence(rows, batch_first=True)  # padding is masked: any token does
    targets_BT = torch.full_like(tokens_BT, IGNORED)
    for row, answer in enumerate(answers):
        answered = slice(len(answer.prompt_ids_P), answer.length)
        targets_BT[row, answered] = tokens_BT[row, answered]
    mask_BT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    tokens_BT, targets_BT, mask_BT = (
        tensor.to(ranks.device()) for tensor in (tokens_BT, targets_BT, mask_BT)
    )
    scored = model(
        input_ids=tokens_BT, attention_mask=mask_BT, labels=targets_BT, fused_lm_head=True
    )
    logprobs_BT: Tensor = scored.log_probs
    return -logprobs_BT.sum() / _tokens(answers)
