"""Supervised steps on answers as they were sampled: what rejection fine-tuning does with those that earned the most.

Shapes: B sequences, T tokens (padded on the right), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from proofloop.records import Tokens
from proofloop_trainer.grpo_batch import minibatches

IGNORED = -100


def fine_tune(
    start: Path, out: Path, answers: Sequence[Tokens], *, epochs: int, batch: int, learning_rate: float, seed: int
) -> int:
    """Train the model of `start` on the answers and write it to `out`; how many updates that took.

    The step size falls to a tenth in a straight line. The same input gives the same weights.
    """
    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model.train()
    cuts = [cut for epoch in range(epochs) for cut in minibatches(answers, batch, seed, "supervised", epoch)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    for done, cut in enumerate(cuts):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - 0.9 * done / len(cuts))
        optimizer.zero_grad()
        supervised_loss(model, cut, tokenizer.pad_token_id).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return len(cuts)


def supervised_loss(model: PreTrainedModel, answers: Sequence[Tokens], pad_id: int) -> Tensor:
    """Mean cross entropy of the answers' tokens; prompts give no loss."""
    rows = [torch.tensor((*answer.prompt_ids, *answer.completion_ids)) for answer in answers]
    tokens_BT = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    targets_BT = torch.full_like(tokens_BT, IGNORED)
    for row, answer in enumerate(answers):
        begin, end = len(answer.prompt_ids), len(answer.prompt_ids) + len(answer.completion_ids)
        targets_BT[row, begin:end] = tokens_BT[row, begin:end]
    mask_BT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    tokens_BT, targets_BT, mask_BT = (tensor.to(model.device) for tensor in (tokens_BT, targets_BT, mask_BT))
    logits_BTV = model(input_ids=tokens_BT, attention_mask=mask_BT).logits[:, :-1]
    return functional.cross_entropy(logits_BTV.float().mT, targets_BT[:, 1:], ignore_index=IGNORED)
