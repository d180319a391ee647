"""Files of given material: proofs to verify and analyses to judge, with or without a grade.

A curriculum needs a grade in every row: D_v holds proofs with their scores, D_mv analyses of proofs
with their quality (section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints, ValidationError

from proofloop.config.row_files import lower_names, read_rows
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.method.domains.base import is_in_split
from proofloop.schema.given import GivenCase
from proofloop.schema.records import Given, Record, Score
from proofloop.schema.validation import first_problem

Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Without white space about it, as in a problem file: its digest says which split it falls into."""

EXPERT = "expert"
"""Who graded a row that does not say it."""


def _number(value: object) -> object:
    """A table's cell as a number; an empty one as none."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if value.strip() else None
    except ValueError:
        return value


def _person(value: object) -> object:
    """An empty cell as the default."""
    return value or EXPERT


Grade = Annotated[Score, BeforeValidator(_number)]
OptionalGrade = Annotated[Score | None, BeforeValidator(_number)]


class _Row(Record):
    question: Question = Field(validation_alias=AliasChoices("question", "problem"))
    solution: str = Field(min_length=1, validation_alias=AliasChoices("solution", "proof"))
    by: Annotated[str, BeforeValidator(_person)] = EXPERT


class GradedProof(_Row):
    """One row of D_v: a proof with its score."""

    score: Grade


class GradedAnalysis(_Row):
    """One row of D_mv: an analysis of a proof with its quality score ms."""

    analysis: str = Field(min_length=1)
    quality: Grade


class GivenProof(_Row):
    """A proof to verify; its score may be unknown."""

    score: OptionalGrade = None
    id: str | int | None = None

    def case(self, origin: str) -> GivenCase:
        given = Given(score=self.score, by=self.by, origin=_with_id(origin, self.id))
        return GivenCase(question=self.question, solution=self.solution, given=given)


class GivenAnalysis(_Row):
    """An analysis to judge; its quality may be unknown."""

    analysis: str = Field(min_length=1)
    quality: OptionalGrade = None
    id: str | int | None = None

    def case(self, origin: str) -> GivenCase:
        by, place = self.by, _with_id(origin, self.id)
        return GivenCase(
            question=self.question,
            solution=self.solution,
            analysis=self.analysis,
            given=Given(is_analysis=True, quality=self.quality, by=by, origin=place),
        )


Graded = TypeVar("Graded", GradedProof, GradedAnalysis)
Row = TypeVar("Row", bound=_Row)


def given_cases(spec: RunSpec) -> list[GivenCase]:
    """The cases of a run's file of given proofs or analyses. All rows are checked first. Raises
    ConfigError.
    """
    section = spec.problems
    if section.given_file is None:
        return []
    file = spec.base / section.given_file
    rows: Iterable[tuple[int, GivenProof | GivenAnalysis]] = (
        _rows(file, GivenProof) if section.given_proofs else _rows(file, GivenAnalysis)
    )
    cases = [
        row.case(f"{file.name} row {number}")
        for number, row in list(rows)
        if section.split is None or is_in_split(row.question, section.split)
    ]
    if not cases or (section.count or 0) > len(cases):
        _refuse_count(spec, file, len(cases))
    return cases[: section.count]


def read_graded(file: Path, kind: type[Graded]) -> tuple[Graded, ...]:
    """The rows of a file, the same one once. Raises ConfigError that names the first bad row."""
    return tuple(dict.fromkeys(row for _, row in _rows(file, kind)))


def in_split(rows: Iterable[Graded], split: str) -> list[Graded]:
    """The rows about questions of a split."""
    return [row for row in rows if is_in_split(row.question, split)]


def _rows(file: Path, kind: type[Row]) -> Iterator[tuple[int, Row]]:
    """The rows with their numbers. Raises ConfigError for a bad row, and for a file without one."""
    rows = read_rows(file)
    if not rows:
        raise ConfigError(f"{file} has no rows", f"give rows with {_fields(kind)}")
    for number, row in enumerate(rows, 1):
        yield number, _read(row, f"row {number} of {file}", kind)


def _read(row: Any, place: str, kind: type[Row]) -> Row:
    try:
        return kind.model_validate(lower_names(row) if isinstance(row, dict) else row)
    except ValidationError as error:
        raise ConfigError(
            f"{place}: {first_problem(error)}", f"each row has {_fields(kind)}"
        ) from error


def _fields(kind: type[Row]) -> str:
    about = "`question`, `solution`"
    is_proof = "analysis" not in kind.model_fields
    grade = "`score` (0, 0.5 or 1)" if is_proof else "`quality` (0, 0.5 or 1)"
    analysis = "" if is_proof else ", `analysis`"
    if "id" in kind.model_fields:
        return f"{about}{analysis}, and may have {grade}, `by`, `id`"
    return f"{about}{analysis}, {grade}"


def _with_id(origin: str, name: str | int | None) -> str:
    return origin if name in (None, "") else f"{origin}, id {name}"


def _refuse_count(spec: RunSpec, file: Path, found: int) -> None:
    part = f" in the {spec.problems.split} split" if spec.problems.split else ""
    what = spec.problems.sources[0].removeprefix("given_")
    if not found:
        raise ConfigError(
            f"{file} has no {what}{part}", "leave out [problems] split, or add rows to the file"
        )
    raise ConfigError(
        f"[problems] count = {spec.problems.count}: {file} has only {found} {what}{part}",
        f"set count to {found} or less, or leave it out for all {what}",
    )
