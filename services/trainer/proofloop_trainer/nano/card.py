"""Trains a base model and writes its model card, for `proofloop nano train --out FOLDER`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch

from proofloop_trainer import ranks
from proofloop_trainer.nano.evaluate import measure
from proofloop_trainer.nano.pretrain import DEFAULT_STEPS, PRACTICE_SHARE, TABLE_STEPS, train_base

MEASURED_PROBLEMS = 500

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# proofloop nano base

A Llama model with {parameters:,} weights. Depending on the prompt, it proves chains of `+ - *`
modulo 10, evaluates such proofs, or judges such evaluations. It is **imperfect on purpose**:
training by the loop starts from it.

Trained from random weights in {seconds:.0f} seconds ({where}), on synthetic data only
(seed {seed}): {table_steps} steps on single lines, then {steps} steps: {practice:.0%} of them on
finding flaws and false claims, the others on demonstrations with a fixed share of errors
(`demonstrations.py`). To train it again:

    proofloop nano train --out FOLDER --seed {seed} --steps {steps} --threads {threads}

Measured by the exact checker at temperature 1 on {problems} problems of the test split.
`proofloop_trainer.nano.evaluate.Figures` defines the figures. The training loop never uses this
checker.

| figure | value |
|---|---|
{rows}
"""


def make_base(folder: Path, seed: int = 0, steps: int = DEFAULT_STEPS, threads: int = 1) -> None:
    """Train a base model in `steps` steps, measure it, and write its card with its origin and
    figures.
    """
    began = time.monotonic()
    parameters = train_base(folder, seed, steps, threads).num_parameters()
    seconds = time.monotonic() - began
    figures = asdict(measure(folder, MEASURED_PROBLEMS))
    card = CARD.format(
        parameters=parameters,
        seed=seed,
        steps=steps,
        threads=threads,
        seconds=seconds,
        where=_where_trained(threads),
        table_steps=TABLE_STEPS,
        practice=PRACTICE_SHARE,
        problems=MEASURED_PROBLEMS,
        rows="\n".join(f"| `{name}` | {value:.3f} |" for name, value in figures.items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _where_trained(threads: int) -> str:
    """The device that this process trains on."""
    return (
        torch.cuda.get_device_name()
        if ranks.device().type == "cuda"
        else f"CPU, threads: {threads}"
    )
