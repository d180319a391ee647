"""Train the nano base model from nothing, in minutes on one core: tables first, then demonstrations.

Shapes: B sequences, T tokens, V vocabulary, K flaw kinds. Two things make it fast: embeddings with a large standard
deviation (digits are told apart from the first step), and an auxiliary head that marks bad lines, dropped afterwards.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from proofloop.domains.nano import FLAW_KINDS, LABELS, MODULUS, OPERATORS, Line, calculate, render_proof
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from proofloop_trainer.nano.demonstrations import Demonstration, demonstrate
from proofloop_trainer.nano.tokenizer import build_tokenizer

WIDTH, LAYERS, HEADS, INNER = 96, 4, 4, 256
MARKED_LAYER = 3  # not the last: what an answer shall use must be there before its last look back
EMBEDDING_STD, LINEAR_STD = 0.4, 0.1
TABLE_STEPS, TABLE_BATCH, TABLE_LINES = 500, 64, 2
BATCH, POOLED_BATCHES = 32, 16  # batches are cut from a sorted pool, so that little is padding
TABLE_RATES, RATES = (4e-3, 1e-3), (1.5e-3, 1e-4)  # fall in a straight line
WARM_UP_STEPS = 30
MARK_WEIGHT = 2.0
IGNORED = -100
EQUALS = " ="


@dataclass(frozen=True)
class Batch:
    """Padded on the right. `targets_BT` and `marks_BTK` are IGNORED where nothing is to be learnt."""

    tokens_BT: torch.Tensor
    targets_BT: torch.Tensor
    marks_BTK: torch.Tensor


def train_base(out_dir: Path, seed: int = 0, steps: int = 3000, threads: int = 1) -> LlamaForCausalLM:
    """Train, report on stderr, and write a Hugging Face folder (without its card) to `out_dir`."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    mark_head = torch.nn.Sequential(torch.nn.RMSNorm(WIDTH), torch.nn.Linear(WIDTH, len(FLAW_KINDS)))
    _learn("tables", model, mark_head, table_batches(tokenizer, seed), TABLE_STEPS, TABLE_RATES)
    _learn("demonstrations", model, mark_head, demonstration_batches(tokenizer, seed), steps, RATES)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    return model


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A tiny Llama; its embeddings also read out."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        initializer_range=LINEAR_STD,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)
    return model


def table_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Lines without context, half of them wrong: right ones are to be completed, all are to be marked."""
    rng = random.Random(f"tables/{seed}")
    while True:
        rows = [[_table_line(rng) for _ in range(TABLE_LINES)] for _ in range(TABLE_BATCH)]
        tokens = [tokenizer(render_proof(line for line, _ in row)).input_ids for row in rows]
        marks = [tuple(frozenset() if right else frozenset({"miscalculated"}) for _, right in row) for row in rows]
        batch = _pad(tokenizer, tokens, [IGNORED] * len(rows), marks)
        right = batch.marks_BTK.sum(-1) == 0
        yield Batch(batch.tokens_BT, torch.where(right, batch.tokens_BT, IGNORED), batch.marks_BTK)


def demonstration_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Demonstrations of all tasks, of similar length within a batch."""
    rng, source = random.Random(f"batches/{seed}"), demonstrate(seed)
    while True:
        rows = [_encode(tokenizer, shown) for shown in itertools.islice(source, BATCH * POOLED_BATCHES)]
        rows.sort(key=lambda row: len(row[0]))
        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        for batch in rng.sample(batches, len(batches)):
            tokens, prompt_lengths, marks = zip(*batch, strict=True)
            yield _pad(tokenizer, tokens, prompt_lengths, marks)


def loss_of(
    model: LlamaForCausalLM, mark_head: torch.nn.Module, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the answers, each answer counted alike, and that of the marks on the proof lines on the way."""
    hidden = model.model(input_ids=batch.tokens_BT, output_hidden_states=True).hidden_states
    logits_BTV = model.lm_head(hidden[-1][:, :-1])
    targets_BT = batch.targets_BT[:, 1:]
    losses_BT = functional.cross_entropy(logits_BTV.mT, targets_BT, ignore_index=IGNORED, reduction="none")
    answer_loss = (losses_BT.sum(-1) / (targets_BT != IGNORED).sum(-1).clamp(min=1)).mean()
    marked_BT = batch.marks_BTK[..., 0] != IGNORED
    seen = mark_head(hidden[MARKED_LAYER][marked_BT])
    return answer_loss, functional.binary_cross_entropy_with_logits(seen, batch.marks_BTK[marked_BT].float())


def _learn(
    stage: str,
    model: LlamaForCausalLM,
    mark_head: torch.nn.Module,
    batches: Iterator[Batch],
    steps: int,
    rates: tuple[float, float],
) -> None:
    parameters = [*model.parameters(), *mark_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rates[0], betas=(0.9, 0.98), weight_decay=0.01)
    began = time.monotonic()
    for step, batch in enumerate(itertools.islice(batches, steps), start=1):
        optimizer.param_groups[0]["lr"] = _rate(step, steps, *rates)
        answer_loss, mark_loss = loss_of(model, mark_head, batch)
        optimizer.zero_grad()
        (answer_loss + MARK_WEIGHT * mark_loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps:
            left = (time.monotonic() - began) / step * (steps - step)
            losses = f"answers {answer_loss.item():.3f}  marks {mark_loss.item():.3f}"
            print(f"{stage} {step}/{steps}  {losses}  {left:.0f} s left", file=sys.stderr, flush=True)


def _rate(step: int, steps: int, peak: float, final: float) -> float:
    """Warm up, then fall in a straight line."""
    return min(step / WARM_UP_STEPS, 1.0) * (peak + (final - peak) * step / steps)


def _encode(
    tokenizer: PreTrainedTokenizerFast, shown: Demonstration
) -> tuple[list[int], int, tuple[frozenset[str], ...]]:
    prompt = [{"role": "user", "content": shown.prompt}]
    prompt_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    answer_ids = tokenizer(shown.answer).input_ids
    return [*prompt_ids, *answer_ids, tokenizer.eos_token_id], len(prompt_ids), shown.marks


def _pad(tokenizer: PreTrainedTokenizerFast, tokens, prompt_lengths, marks) -> Batch:  # type: ignore[no-untyped-def]
    """Put rows together. A line's marks stand at its result, which is the token after its equals sign."""
    width, equals = max(map(len, tokens)), tokenizer.convert_tokens_to_ids(EQUALS)
    tokens_BT = torch.full((len(tokens), width), tokenizer.pad_token_id)
    targets_BT = torch.full((len(tokens), width), IGNORED)
    marks_BTK = torch.full((len(tokens), width, len(FLAW_KINDS)), IGNORED)
    for number, (row, prompt_length, lines) in enumerate(zip(tokens, prompt_lengths, marks, strict=True)):
        tokens_BT[number, : len(row)] = torch.tensor(row)
        if prompt_length != IGNORED:
            targets_BT[number, prompt_length : len(row)] = tokens_BT[number, prompt_length : len(row)]
        places = [place + 1 for place, token in enumerate(row) if token == equals]
        for place, shown in zip(places, lines, strict=True):
            marks_BTK[number, place] = torch.tensor([int(kind in shown) for kind in FLAW_KINDS])
    return Batch(tokens_BT, targets_BT, marks_BTK)


def _table_line(rng: random.Random) -> tuple[Line, bool]:
    value, operator, operand = rng.randrange(MODULUS), rng.choice(OPERATORS), rng.randrange(MODULUS)
    result, is_right = calculate(value, operator, operand), rng.random() < 0.5
    shown = result if is_right else (result + rng.randrange(1, MODULUS)) % MODULUS
    return Line(rng.choice(LABELS), value, operator, operand, shown), is_right
