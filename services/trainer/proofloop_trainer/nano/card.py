"""Makes a base model with its card: `proofloop nano train --out FOLDER` calls this."""

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

A Llama-type model of {parameters:,} weights that proves chains of `+ - *` modulo 10, evaluates such proofs and judges
such evaluations; the prompt says which. It is **imperfect on purpose**: the starting point for learning by the loop.

Trained from nothing in {seconds:.0f} seconds ({where}), on synthetic data only (seed {seed}):
{table_steps} steps on single lines, then {steps}: {practice:.0%} of them on finding faults and false claims, the others
on demonstrations of which a set share is wrong (`demonstrations.py`). Again:

    proofloop nano train --out FOLDER --seed {seed} --steps {steps} --threads {threads}

Measured at temperature 1 on {problems} problems of the test split, by the exact checker; what each figure is of, says
`proofloop_trainer.nano.evaluate.Figures`. The loop itself never sees that checker.

| figure | value |
|---|---|
{rows}
"""


def make_base(folder: Path, seed: int = 0, steps: int = DEFAULT_STEPS, threads: int = 1) -> None:
    """Train a base model in so many steps, measure it, and write its card: where it comes from, and how good it is."""
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
    """On what this process trains."""
    return torch.cuda.get_device_name() if ranks.device().type == "cuda" else f"CPU, threads: {threads}"
