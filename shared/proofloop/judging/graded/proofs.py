"""Reads proofs with people's grades from a file, or from the folder of the AIMO Proof Pilot. A bad
row is set aside with its reason; the others are judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proofloop.config.row_files import each_row
from proofloop.errors import ConfigError
from proofloop.judging.graded.columns import find_columns, flatten
from proofloop.judging.graded.grades import (
    PASS_FAIL,
    Scale,
    full_marks,
    grade_and_full,
    guess_scale,
    parse_grade,
)
from proofloop.judging.graded.proof_pilot import pilot_rows
from proofloop.method.prompts.packs import AIDS
from proofloop.method.scales import MINOR
from proofloop.schema.given import GivenCase, PeoplesGrade
from proofloop.schema.records import Given, digest

REASONS_SHOWN = 5


@dataclass(frozen=True)
class GradedProofs:
    """The proofs of a file. `skipped`: why rows were set aside. `notes`: how columns and grades
    were read.
    """

    cases: tuple[GivenCase, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    """A row before its grade is put on a scale. `full`: its own full marks."""

    place: str
    cells: Mapping[str, Any]
    grade: float
    full: float | None


def read_graded_proofs(
    file: Path,
    columns: Mapping[str, str],
    scale: Scale | None = None,
    needed: Sequence[str] = (),
) -> GradedProofs:
    """Read the file. `columns`: those that the user named. `needed`: the aids that the prompts
    show. Raises ConfigError if no row can be judged.
    """
    skipped: list[str] = []
    cells = list(_cells(file, skipped))
    if not cells:
        raise _nothing(file, skipped)
    at = find_columns(dict.fromkeys(name for _, row in cells for name in row), columns)
    rows = [row for place, found in cells if (row := _row(place, found, at, skipped))]
    scale = scale or _guess(rows)
    cases = [case for row in rows if (case := _case(row, at, scale, needed, skipped))]
    if not cases:
        raise _nothing(file, skipped)
    notes = (*(f"{what}: column {column!r}" for what, column in at.items()), _meaning(scale, rows))
    return GradedProofs(tuple(cases), tuple(skipped), notes)


def _cells(file: Path, skipped: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows that are objects, by their places."""
    rows = pilot_rows(file) if file.is_dir() else each_row(file)
    for number, row in enumerate(rows, 1):
        place = f"{file.name} row {number}"
        if isinstance(row, ConfigError):
            skipped.append(str(row.problem))
        elif isinstance(row, Mapping):
            yield place, flatten(row)
        else:
            skipped.append(f"{place}: not an object with columns")


def _row(
    place: str, cells: Mapping[str, Any], at: Mapping[str, str], skipped: list[str]
) -> _Row | None:
    found = {what: cells.get(column) for what, column in at.items()}
    try:
        for what in ("problem", "proof"):
            if not _text(found[what]):
                raise ConfigError(f"no {what}", "")
        if at["proof"].rpartition(".")[2] == "steps" and at["grade"] == "label":
            # ProcessBench: the number of the first wrong step, -1 if all are right
            return _Row(place, found, float(parse_grade(found["grade"]) == -1), 1.0)
        grade, full = grade_and_full(found["grade"])
        if found.get("max") not in (None, ""):
            most = full_marks(found["max"])
            if full not in (None, most):
                raise ConfigError(
                    f"grade {found['grade']!r} is of {full:g}, but the row's full marks are"
                    f" {most:g}",
                    "correct the row",
                )
            full = most
        return _Row(place, found, grade, full)
    except ConfigError as error:
        skipped.append(f"{place}: {error.problem}")
        return None


def _case(
    row: _Row, at: Mapping[str, str], scale: Scale, needed: Sequence[str], skipped: list[str]
) -> GivenCase | None:
    try:
        graded = _graded(row, scale)
    except ConfigError as error:
        skipped.append(f"{row.place}: {error.problem}")
        return None
    aids = {aid: _text(row.cells.get(aid)) or None for aid in AIDS}
    if missing := [aid for aid in needed if aids[aid] is None]:
        skipped.append(f"{row.place}: the prompt pack shows a {missing[0]}, and the row has none")
        return None
    name = row.cells.get("id")
    return GivenCase(
        question=_text(row.cells["problem"]),
        solution=_text(row.cells["proof"]),
        given=Given(origin=row.place if name in (None, "") else f"{row.place}, id {name}"),
        graded=graded,
        reference=aids["reference"],
        rubric=aids["rubric"],
    )


def _graded(row: _Row, scale: Scale) -> PeoplesGrade:
    name = _text(row.cells.get("problem_id")) or digest(_text(row.cells["problem"]))
    grade, own = _own_scale(row, scale)
    return PeoplesGrade(
        share=own.share(grade),
        score=own.score(grade),
        problem=name,
        source=_text(row.cells.get("source")),
    )


def _own_scale(row: _Row, scale: Scale) -> tuple[float, Scale]:
    """The grade on its scale: the row's own if it names its full marks. Among scores 1/2 is 0.5."""
    if row.full is None:
        return row.grade, scale
    if scale.is_score and row.full in (1, 2):
        return row.grade / row.full, scale
    return row.grade, PASS_FAIL if row.full == 1 else Scale(row.full)


def _guess(rows: Sequence[_Row]) -> Scale:
    """The scale of the grades without full marks of their own."""
    grades = [row.grade for row in rows if row.full is None]
    if rows and not grades:
        return PASS_FAIL
    return guess_scale(grades)


def _meaning(scale: Scale, rows: Sequence[_Row]) -> str:
    if all(row.full is not None for row in rows) and any(row.full != 1 for row in rows):
        return f"rows name their full marks: these count as 1, {MINOR:.0%} or more as 0.5"
    return scale.meaning


def _text(value: object) -> str:
    """A cell as text; a list of steps as paragraphs."""
    if isinstance(value, list | tuple):
        return "\n\n".join(str(step).strip() for step in value).strip()
    return "" if value is None else str(value).strip()


def _nothing(file: Path, skipped: Sequence[str]) -> ConfigError:
    reasons = "; ".join(skipped[:REASONS_SHOWN])
    return ConfigError(
        f"{file} has no row that can be judged{f': {reasons}' if reasons else ''}",
        "give rows with a problem, a proof and a grade",
    )
