"""The content of each column of a file: guessed by its name, or named by the user.

The names cover these public layouts, as their owners described them on 2026-11-30:

- IMO-GradingBench: github.com/google-deepmind/superhuman, imobench/hf_dataset_cards/gradingbench.md
- ProofBench: huggingface.co/datasets/wenjiema02/ProofBench, README.md
- ProcessBench: huggingface.co/datasets/Qwen/ProcessBench, README.md
- MathArena: huggingface.co/datasets/MathArena/imo_2025_outputs, README.md
- Open Proof Corpus: huggingface.co/datasets/INSAIT-Institute/OPC, all splits; its columns are in
  github.com/insait-institute/open-proof-corpus, notebooks/extraction.ipynb
- outputs of DeepSeekMath-V2: github.com/deepseek-ai/DeepSeek-Math-V2, outputs/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from proofloop.errors import ConfigError

NAMES: Mapping[str, tuple[str, ...]] = {
    "problem": ("problem", "question", "problem_statement", "statement"),
    "proof": (
        "proof",
        "response",
        "model_solution",
        "student_answer",
        "steps",
        "solution",
        "answer",
    ),
    "grade": (
        "grade",
        "human_rating",
        "expert_rating",
        "points",
        "points_awarded",
        "points_judge_1",
        "score",
        "rating",
        "is_correct",
        "correct",
        "label",
        "reward",
    ),
    "max": ("max", "max_points", "max_points_judge_1", "max_score", "full_marks", "points_max"),
    "problem_id": ("problem_id", "problem_idx", "problem_name"),
    "source": (
        "source",
        "problem_source",
        "contest",
        "competition",
        "generator",
        "model_id",
        "model_name",
        "model",
    ),
    "reference": (
        "reference",
        "reference_solution",
        "ground_truth_solution",
        "gold_solution",
        "solution",
    ),
    "rubric": ("rubric", "rubrics", "marking_scheme", "grading_guidelines", "grading_scheme"),
    "id": ("id", "grading_id", "uuid"),
}
"""What a row has, with the columns' names in the order in which they are tried."""

EXPORTED = {
    "problem": "question",
    "proof": "solution",
    "grade": "score",
    "problem_id": "problem",
    "id": "proof",
}
"""The columns of `proofloop runs export`, whose `problem` and `proof` are ids."""

NEEDED = ("problem", "proof", "grade")


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The cells of a row; those of a nested object under a dotted name."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def parse_columns(options: Iterable[str]) -> dict[str, str]:
    """The columns that the user named, as in `grade=Points`. Raises ConfigError."""
    named: dict[str, str] = {}
    for option in options:
        what, _, column = option.partition("=")
        if what not in NAMES or not column:
            raise ConfigError(
                f"--column {option!r} names no column",
                f"use {', '.join(NAMES)}, as in grade=Points",
            )
        named[what] = column
    return named


def find_columns(cells: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
    """The column of each content that the file has. Raises ConfigError if a required or named
    column is missing.
    """
    columns = list(cells)
    is_exported = {"run", *EXPORTED.values()} <= set(columns)
    found = {**EXPORTED, **named} if is_exported else dict(named)
    for what, column in named.items():
        if column not in columns:
            raise ConfigError(
                f"there is no column {column!r} for the {what}", f"columns: {', '.join(columns)}"
            )
    for what, names in NAMES.items():
        free = [column for column in columns if column not in found.values()]
        match = next((one for name in names for one in free if _plain(one) == name), None)
        if what not in found and match is not None:
            found[what] = match
    for what in NEEDED:
        if what not in found:
            raise ConfigError(
                f"no column looks like the {what}: {', '.join(columns)}",
                f"name it: --column {what}=NAME",
            )
    return found


def _plain(column: str) -> str:
    """The last part of a dotted name in lower case, words joined by underscores."""
    return re.sub(r"[\s-]+", "_", column.rpartition(".")[2].strip().lower())
