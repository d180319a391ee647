"""Trains the nano base model from random weights, in at most an hour on two cores, in four stages.

- tables: single lines.
- practice: proofs with many flaws, with true critiques or with true judgements of false claims.
- skills: imperfect demonstrations with a loss on all right tokens of proofs and judged omissions,
  those in prompts too: the model learns to calculate and to look up values.
- habits: imperfect demonstrations with a loss on the answers only, flaws included.

Two things make the training fast: embeddings with a large standard deviation, which separate the
digits from the first step on, and an auxiliary head (dropped after training) that predicts the step
at fault at each wrong token.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from proofloop.errors import ConfigError
from proofloop.method.domains.nano import LABELS, MODULUS, OPERATORS, Line, calculate, render_proof
from proofloop_trainer import ranks
from proofloop_trainer.fine_tuning.supervised import SupervisedStep
from proofloop_trainer.nano.claims import IGNORED, ClaimMarks
from proofloop_trainer.nano.demonstrations import (
    BASE,
    COLD_START,
    Demonstration,
    Mix,
    demonstrate,
    practice,
)
from proofloop_trainer.nano.flaws import LineMarks
from proofloop_trainer.nano.tokenizer import build_tokenizer

WIDTH, LAYERS, HEADS, INNER = 96, 4, 4, 256
MARKED_LAYER = 3  # not the last, so that the last attention layer can use the marks
EMBEDDING_STD, LINEAR_STD = 0.4, 0.1
TABLE_STEPS, TABLE_BATCH, TABLE_LINES = 500, 64, 2
PRACTICE_BATCH = 64
BATCH = 32
POOLED_BATCHES = 16  # batches are cut from a sorted pool, which keeps padding short
# First and last learning rate of each stage, linear in between.
TABLE_RATES = (4e-3, 1e-3)
PRACTICE_RATES = (1.5e-3, 6e-4)
SKILL_RATES = (1e-3, 2e-4)
HABIT_RATES = (5e-4, 5e-5)
COLD_START_SEED = 1_000_000  # the demonstrations must differ from the base model's
WARM_UP_STEPS = 30
DEFAULT_STEPS = 11000
PRACTICE_SHARE = 0.7  # of all steps
SKILL_SHARE = 0.75  # of the steps after practice
STEP_WEIGHT, MARK_WEIGHT = 0.5, 2.0  # of the auxiliary losses
EQUALS, MISSING = " =", " is missing:"
# The positions of marked tokens relative to the equals sign.
LINE_PLACES = (-4, -3, -2, -1, 1)  # in a proof line
CLAIM_PLACES = (-5, -3, -2, -1, 1, 4)  # in a claimed omission


@dataclass(frozen=True)
class Row:
    """One sequence with its marks in the order of the text. The answer begins after `prompt_length`
    tokens.
    """

    tokens: list[int]
    prompt_length: int
    lines: Sequence[LineMarks]
    claims: Sequence[ClaimMarks] = ()


@dataclass(frozen=True)
class Batch:
    """A batch padded on the right.

    `marks_BT`: 0 for a right marked token, the number of the step at fault for a wrong one, IGNORED
      for other tokens.
    `targets_BT`: the tokens to predict, else IGNORED.
    """

    tokens_BT: torch.Tensor
    targets_BT: torch.Tensor
    marks_BT: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(
            self.tokens_BT.to(device), self.targets_BT.to(device), self.marks_BT.to(device)
        )


@dataclass(frozen=True)
class Losses:
    """The losses: of the answers, of all tokens marked as right (in prompts too), and of the
    predicted marks.
    """

    answers: torch.Tensor
    steps: torch.Tensor
    marks: torch.Tensor

    def total(self, step_weight: float) -> torch.Tensor:
        return self.answers + step_weight * self.steps + MARK_WEIGHT * self.marks

    def __str__(self) -> str:
        return (
            f"answers {self.answers.item():.3f}  steps {self.steps.item():.3f}  marks"
            f" {self.marks.item():.3f}"
        )


def train_base(
    out_dir: Path, seed: int = 0, steps: int = DEFAULT_STEPS, threads: int = 1
) -> LlamaForCausalLM:
    """Train a base model and write it to `out_dir` in Hugging Face format, without a model card.

    Progress goes to stderr. `threads`: CPU threads of torch.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    mark_head = build_mark_head()
    demonstrations = demonstration_batches(tokenizer, seed)
    practices = round(steps * PRACTICE_SHARE)
    skills = round((steps - practices) * SKILL_SHARE)
    tables = table_batches(tokenizer, seed)
    practice = practice_batches(tokenizer, seed)
    _learn("tables", model, mark_head, tables, TABLE_STEPS, TABLE_RATES, STEP_WEIGHT)
    _learn("practice", model, mark_head, practice, practices, PRACTICE_RATES, STEP_WEIGHT)
    _learn("skills", model, mark_head, demonstrations, skills, SKILL_RATES, STEP_WEIGHT)
    _learn("habits", model, mark_head, demonstrations, steps - practices - skills, HABIT_RATES, 0.0)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    return model


def cold_start(
    start: Path,
    out_dir: Path,
    *,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
    before_step: Callable[[], None] = lambda: None,
    after_step: Callable[[SupervisedStep], None] = lambda step: None,
) -> None:
    """Train a nano model further on the COLD_START demonstrations: skills first, then habits.

    `before_step` may raise to stop the training. Raises ConfigError if `start` is not a nano model.
    """
    check_is_nano(start)
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(start)
    model.train()
    shown = demonstration_batches(tokenizer, COLD_START_SEED + seed, batch, COLD_START)
    skills = round(steps * SKILL_SHARE)
    head = build_mark_head()
    turn = learning_rate / 4  # where the skills end and the habits begin

    def after_skill(step: SupervisedStep) -> None:
        after_step(replace(step, total=steps))

    def after_habit(step: SupervisedStep) -> None:
        after_step(replace(step, number=skills + step.number, total=steps))

    falling, rest = (learning_rate, turn), steps - skills
    _learn("skills", model, head, shown, skills, falling, STEP_WEIGHT, before_step, after_skill)
    _learn("habits", model, head, shown, rest, (turn, turn / 5), 0.0, before_step, after_habit)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def check_is_nano(start: Path) -> None:
    """Raise ConfigError if the folder holds no nano model."""
    tokenizer = build_tokenizer()
    if not _is_nano(start, tokenizer):
        raise ConfigError(
            f"{start} is not a nano model ({len(tokenizer)} tokens, width {WIDTH}), and the"
            " demonstrations of the domain nano are for nano models",
            "start from nano-base or a version of it; teach another model by demonstrations from a"
            " file, or set [cold_start] steps = 0 in a curriculum",
        )


def _is_nano(start: Path, tokenizer: PreTrainedTokenizerFast) -> bool:
    try:
        config = AutoConfig.from_pretrained(start, local_files_only=True)
        words = AutoTokenizer.from_pretrained(start, local_files_only=True).get_vocab()
    except (OSError, ValueError):
        return False  # only the engine knows the name, or transformers does not know the model type
    return bool(words == tokenizer.get_vocab() and getattr(config, "hidden_size", None) == WIDTH)


def build_mark_head() -> torch.nn.Module:
    """The auxiliary head that predicts the step at fault at each wrong token; dropped after
    training.
    """
    return torch.nn.Sequential(torch.nn.RMSNorm(WIDTH), torch.nn.Linear(WIDTH, 1 + len(LABELS)))


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A small Llama model with random weights."""
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
    embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
    torch.nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
    return model


def table_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Single lines, half of them wrong: the targets are the right lines' tokens and the marks of
    all lines.
    """
    rng = random.Random(f"tables/{seed}")
    while True:
        rows = list[Row]()
        for _ in range(TABLE_BATCH):
            lines, marks = zip(*(_table_line(rng) for _ in range(TABLE_LINES)), strict=True)
            tokens = tokenizer(render_proof(lines)).input_ids
            rows.append(Row(tokens, len(tokens), [(*[IGNORED] * 4, mark) for mark in marks]))
        yield _right_lines(_pad(tokenizer, rows))


def practice_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Batches of `practice`: proofs to verify, a quarter of whose lines are wrong, or critiques to
    judge.
    """
    return _pooled(tokenizer, practice(seed), PRACTICE_BATCH, seed)


def demonstration_batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, size: int = BATCH, mix: Mix = BASE
) -> Iterator[Batch]:
    """Batches of `demonstrate`: demonstrations of all tasks."""
    return _pooled(tokenizer, demonstrate(seed, mix), size, seed)


def _pooled(
    tokenizer: PreTrainedTokenizerFast, source: Iterator[Demonstration], size: int, seed: int
) -> Iterator[Batch]:
    """Batches of sequences with similar lengths."""
    rng = random.Random(f"batches/{seed}")
    while True:
        rows = _encode(tokenizer, list(itertools.islice(source, size * POOLED_BATCHES)))
        rows.sort(key=lambda row: len(row.tokens))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        for batch in rng.sample(batches, len(batches)):
            yield _pad(tokenizer, batch)


def _right_lines(batch: Batch) -> Batch:
    """The batch with all right proof tokens as targets, and no others."""
    return replace(batch, targets_BT=torch.where(batch.marks_BT == 0, batch.tokens_BT, IGNORED))


def loss_of(model: LlamaForCausalLM, mark_head: torch.nn.Module, batch: Batch) -> Losses:
    """The three losses of a batch."""
    batch = batch.to(model.device)
    hidden = model.model(input_ids=batch.tokens_BT, output_hidden_states=True).hidden_states
    logits_BTV = model.lm_head(hidden[-1][:, :-1])
    right_BT = torch.where(batch.marks_BT == 0, batch.tokens_BT, IGNORED)
    is_marked_BT = batch.marks_BT != IGNORED
    seen = mark_head(hidden[MARKED_LAYER][is_marked_BT])
    return Losses(
        answers=_answer_loss(logits_BTV, batch.targets_BT[:, 1:]),
        steps=functional.cross_entropy(logits_BTV.mT, right_BT[:, 1:], ignore_index=IGNORED),
        marks=functional.cross_entropy(seen, batch.marks_BT[is_marked_BT]),
    )


def _answer_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """A mean in which an answer has the weight of the root of its length, so that long proofs do
    not dominate.
    """
    losses_BT = functional.cross_entropy(
        logits_BTV.mT, targets_BT, ignore_index=IGNORED, reduction="none"
    )
    lengths_B = (targets_BT != IGNORED).sum(-1)
    weights_B = lengths_B.clamp(min=1).rsqrt()
    return (losses_BT.sum(-1) * weights_B).sum() / (lengths_B * weights_B).sum()


def _learn(
    stage: str,
    model: LlamaForCausalLM,
    mark_head: torch.nn.Module,
    batches: Iterator[Batch],
    steps: int,
    rates: tuple[float, float],
    step_weight: float,
    before_step: Callable[[], None] = lambda: None,
    after_step: Callable[[SupervisedStep], None] = lambda step: None,
) -> None:
    # transformers declares `to` without its arguments.
    cast(torch.nn.Module, model).to(ranks.device())
    mark_head.to(ranks.device())
    parameters = [*model.parameters(), *mark_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rates[0], betas=(0.9, 0.98), weight_decay=0.01)
    began = time.monotonic()
    for step, batch in enumerate(itertools.islice(batches, steps), start=1):
        before_step()
        rate = _rate(step, steps, *rates)
        optimizer.param_groups[0]["lr"] = rate
        losses = loss_of(model, mark_head, batch)
        optimizer.zero_grad()
        losses.total(step_weight).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        tokens = int((batch.targets_BT != IGNORED).sum())
        after_step(SupervisedStep(step, steps, losses.answers.item(), rate, tokens))
        if step % 50 == 0 or step == steps:
            left = (time.monotonic() - began) / step * (steps - step)
            print(
                f"{stage} {step}/{steps}  {losses}  {left:.0f} s left", file=sys.stderr, flush=True
            )


def _rate(step: int, steps: int, peak: float, final: float) -> float:
    """The learning rate at a step: a warm-up, then a linear decay."""
    return min(step / WARM_UP_STEPS, 1.0) * (peak + (final - peak) * step / steps)


def _encode(tokenizer: PreTrainedTokenizerFast, shown: Sequence[Demonstration]) -> list[Row]:
    """The rows of the demonstrations, each with prompt and answer."""
    asked = [[{"role": "user", "content": each.prompt}] for each in shown]
    prompts = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    answers = tokenizer([each.answer for each in shown]).input_ids
    return [
        Row(
            [*prompt_ids, *answer_ids, tokenizer.eos_token_id],
            len(prompt_ids),
            each.marks,
            each.claims,
        )
        for prompt_ids, answer_ids, each in zip(prompts, answers, shown, strict=True)
    ]


def _pad(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> Batch:
    """Pad rows to a batch."""
    tokens_BT = torch.full(
        (len(rows), max(len(row.tokens) for row in rows)), tokenizer.pad_token_id
    )
    targets_BT = torch.full_like(tokens_BT, IGNORED)
    marks_BT = torch.full_like(tokens_BT, IGNORED)
    for number, row in enumerate(rows):
        end = len(row.tokens)
        tokens_BT[number, :end] = torch.tensor(row.tokens)
        targets_BT[number, row.prompt_length : end] = tokens_BT[number, row.prompt_length : end]
        marks = dict(_marked(tokenizer, row))
        marks_BT[number, :end] = torch.tensor([marks.get(place, IGNORED) for place in range(end)])
    return Batch(tokens_BT, targets_BT, marks_BT)


def _marked(tokenizer: PreTrainedTokenizerFast, row: Row) -> Iterator[tuple[int, int]]:
    """Positions with their marks. Four tokens before its equals sign, a proof line has a label, an
    omission MISSING.
    """
    labels = _ids(tokenizer, LABELS)
    equals, missing = _ids(tokenizer, (EQUALS, MISSING))
    signs = [place for place, token in enumerate(row.tokens) if token == equals]
    lines = [place for place in signs if row.tokens[place - 4] in labels]
    claims = [place for place in signs if row.tokens[place - 4] == missing] if row.claims else []
    for places, offsets, marked in (
        (lines, LINE_PLACES, row.lines),
        (claims, CLAIM_PLACES, row.claims),
    ):
        for place, marks in zip(places, marked, strict=True):
            for offset, mark in zip(offsets, marks, strict=False):
                yield place + offset, mark


def _ids(tokenizer: PreTrainedTokenizerFast, tokens: Iterable[str]) -> list[int]:
    return cast(list[int], tokenizer.convert_tokens_to_ids(list(tokens)))


def _table_line(rng: random.Random) -> tuple[Line, int]:
    """A random line, right or wrong, with its result's mark."""
    value = rng.randrange(MODULUS)
    operator = rng.choice(OPERATORS)
    operand = rng.randrange(MODULUS)
    result = calculate(value, operator, operand)
    is_right = rng.random() < 0.5
    index = rng.randrange(len(LABELS))
    shown = result if is_right else (result + rng.randrange(1, MODULUS)) % MODULUS
    return Line(LABELS[index], value, operator, operand, shown), 0 if is_right else 1 + index
