"""One-shot evaluation, section 3.3.1: proofs of each problem, scored by the majority of their
critiques.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proofloop.config.problem_file import read_problems
from proofloop.config.row_files import read_rows
from proofloop.errors import ConfigError
from proofloop.judging.graded.columns import flatten
from proofloop.judging.runs import checker_of
from proofloop.runs.answers import proofs_of
from proofloop.runs.figures import Clusters, Figure
from proofloop.runs.labels import find_label
from proofloop.schema.records import Label, Record
from proofloop.store import Store

CATEGORIES = ("category", "subject", "topic", "contest", "source")
"""The columns that are tried for a problem's category, in this order."""

ALL = "all"
NONE = "(none)"
"""The category of a problem whose row names none."""

REPLACED = ("refinement", "search", "training", "fine_tuning", "labeling")
"""The sections of a run file that the protocol of one-shot evaluation replaces."""


class CategoryFigures(Record):
    """The problems of a category. `pass_at_1`: the share of proofs whose majority is 1.

    `mean_score` is over proofs with a score; `undecided` and `unreadable` are shares of proofs.
    """

    category: str
    problems: int
    pass_at_1: Figure
    mean_score: Figure
    undecided: Figure
    unreadable: Figure


def evaluating_fields(
    fields: Mapping[str, Any], suite: Path, name: str, *, proofs: int, critiques: int
) -> dict[str, Any]:
    """The fields of a one-shot evaluation of a problem file, made from those of a run file."""
    kept = {key: value for key, value in fields.items() if key not in REPLACED}
    return {
        **kept,
        "name": name,
        "problems": {
            "file": str(suite.absolute()),
            "proofs_per_problem": proofs,
            "checker": checker_of(fields),
        },
        "labeling": {"n": critiques, "m": 0, "k": 1, "stop_early": False, "rule": "majority"},
    }


def categories_of(suite: Path, column: str | None) -> dict[str, str]:
    """The category of each problem by its id; one for all without such a column. Raises
    ConfigError for a column that the file lacks.
    """
    problems = read_problems(suite)
    rows = [flatten(row) for row in read_rows(suite)]
    found = list(dict.fromkeys(name for row in rows for name in row))
    if column is not None and column not in found:
        raise ConfigError(f"{suite} has no column {column!r}", f"columns: {', '.join(found)}")
    named = {name.lower(): name for name in reversed(found)}
    chosen = column or next((named[name] for name in CATEGORIES if name in named), "")
    missing = NONE if chosen else ALL
    return {
        problem.id: str(row.get(chosen) or missing)
        for problem, row in zip(problems, rows, strict=True)
    }


def one_shot_figures(
    store: Store, run_id: str, categories: Mapping[str, str]
) -> Iterator[CategoryFigures]:
    """The figures of each category, then those of all problems."""
    labels: dict[str, list[tuple[str, Label]]] = defaultdict(list)
    for proof in proofs_of(store, run_id):
        label = find_label(store, run_id, proof.id)
        if label is not None:
            labels[categories[proof.problem_id]].append((proof.problem_id, label))
    if len(labels) > 1:
        for category, some in sorted(labels.items()):
            yield _figures(category, some)
    yield _figures(ALL, [pair for some in labels.values() for pair in some])


def _figures(category: str, labels: list[tuple[str, Label]]) -> CategoryFigures:
    found = {name: Clusters() for name in ("pass_at_1", "mean_score", "undecided", "unreadable")}
    for problem, label in labels:
        found["pass_at_1"].add(problem, float(label.score == 1.0))
        found["undecided"].add(problem, float(label.outcome == "undecided"))
        found["unreadable"].add(problem, float(label.outcome == "unreadable"))
        if label.score is not None:
            found["mean_score"].add(problem, label.score)
    return CategoryFigures(
        category=category,
        problems=len({problem for problem, _ in labels}),
        **{name: clusters.figure() for name, clusters in found.items()},
    )
