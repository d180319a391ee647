"""Experts' grades: D_v, proofs with their scores, and D_mv, analyses of proofs with their quality
(section 2.1).

They are drawn and graded where a domain has an exact checker, and read from JSON or JSONL files
where people graded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, Field, StringConstraints, ValidationError

from proofloop.config.row_files import read_rows
from proofloop.errors import ConfigError
from proofloop.method.domains.base import is_in_split
from proofloop.schema.records import Record, Score
from proofloop.schema.validation import first_problem

Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Without white space about it, as in a problem file: its digest says which split it falls into."""


class GradedProof(Record):
    """One row of D_v: a proof with its score."""

    question: Question = Field(validation_alias=AliasChoices("question", "problem"))
    solution: str = Field(min_length=1, validation_alias=AliasChoices("solution", "proof"))
    score: Score
    by: str = "expert"


class GradedAnalysis(Record):
    """One row of D_mv: an analysis of a proof with its quality score ms."""

    question: Question = Field(validation_alias=AliasChoices("question", "problem"))
    solution: str = Field(min_length=1, validation_alias=AliasChoices("solution", "proof"))
    analysis: str = Field(min_length=1)
    quality: Score
    by: str = "expert"


Graded = TypeVar("Graded", GradedProof, GradedAnalysis)


@dataclass(frozen=True)
class Grades:
    """D_v and D_mv as people graded them."""

    proofs: tuple[GradedProof, ...]
    analyses: tuple[GradedAnalysis, ...]


def read_graded(file: Path, kind: type[Graded]) -> tuple[Graded, ...]:
    """The rows of a file, the same one once. Raises ConfigError that names the first bad row."""
    rows = dict.fromkeys(
        _read(row, f"row {number} of {file}", kind) for number, row in enumerate(read_rows(file), 1)
    )
    if not rows:
        raise ConfigError(f"{file} has no rows", f"give rows with {_fields(kind)}")
    return tuple(rows)


def in_split(rows: Iterable[Graded], split: str) -> list[Graded]:
    """The rows about questions of a split."""
    return [row for row in rows if is_in_split(row.question, split)]


def _read(row: Any, place: str, kind: type[Graded]) -> Graded:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        raise ConfigError(
            f"{place}: {first_problem(error)}", f"each row has {_fields(kind)}"
        ) from error


def _fields(kind: type[Graded]) -> str:
    about = "`question`, `solution`"
    score = (
        "`score` (0, 0.5 or 1)" if kind is GradedProof else "`analysis`, `quality` (0, 0.5 or 1)"
    )
    return f"{about}, {score}"
