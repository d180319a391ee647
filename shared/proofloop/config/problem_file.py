"""A run's problems: posed by a domain, or read from a file of rows; all of a file's, or some of a
split.

A bad row is named with its number before anything runs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proofloop.config.latex_in_json import command_at, find_undoubled, name_of
from proofloop.config.row_files import DOUBLE_IT, holds_json, read_rows
from proofloop.config.run_file import Problems, RunSpec
from proofloop.errors import ConfigError
from proofloop.method.domains import Domain, load_domain
from proofloop.method.domains.base import SPLIT_BUCKETS, is_in_split
from proofloop.schema.records import Problem, digest

MAX_QUESTION_CHARS = 100_000
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
"""Characters that no question holds; tabs and line breaks are white space."""

SPLIT_HINT = (
    "a question's digest decides: 8 of 10 are for training, 1 for validation, 1 for test; give more"
    " rows"
)


def problems_of(spec: RunSpec) -> Iterator[Problem]:
    """The run's problems in order, the same each time. Raises ConfigError."""
    wanted = spec.problems
    if wanted.domain is not None:
        yield from _drawn(load_domain(wanted.domain), spec)
    elif wanted.file is not None and wanted.split is not None:
        yield from _drawn(ProblemFile(spec.base / wanted.file), spec)
    elif wanted.file is not None:
        yield from _first(read_problems(spec.base / wanted.file), wanted)


class ProblemFile(Domain):
    """The problems of a file as a domain that has no checker: in an order drawn by the seed, round
    after round.
    """

    name = "file"

    def __init__(self, file: Path) -> None:
        problems = read_problems(file)
        self._file = file
        self._splits = {
            s: [each for each in problems if is_in_split(each.question, s)] for s in SPLIT_BUCKETS
        }
        self._round: tuple[str, list[Problem]] = "", []

    def pose(self, index: int, *, split: str, seed: int) -> Problem:
        """Problem number `index` of those that fall into the split. Raises ConfigError where none
        does.
        """
        chosen = self._splits[split]
        if not chosen:
            raise ConfigError(f"{self._file} has no problem in the {split} split", SPLIT_HINT)
        turn, place = divmod(index, len(chosen))
        name = f"{split}/{seed}/{turn}"
        if self._round[0] != name:
            self._round = name, random.Random(name).sample(chosen, len(chosen))
        return self._round[1][place]

    def count(self, split: str) -> int:
        return len(self._splits[split])


def _first(problems: list[Problem], wanted: Problems) -> list[Problem]:
    if wanted.count is not None and wanted.count > len(problems):
        where = (
            f"[problems] count = {wanted.count}: {wanted.file} has only {len(problems)} problems"
        )
        raise ConfigError(where, "ask for fewer, or leave count out to have all")
    return problems[: wanted.count]


def _drawn(domain: Domain, spec: RunSpec) -> Iterator[Problem]:
    return pose_distinct(
        domain, spec.problems.drawn, split=spec.problems.split or "train", seed=spec.seed
    )


def pose_distinct(domain: Domain, count: int, *, split: str, seed: int) -> Iterator[Problem]:
    """The first different problems: a domain may draw one twice, and two of one id would be one.
    Raises ConfigError.
    """
    seen = set[str]()
    for index in range(10 * count):
        problem = domain.pose(index, split=split, seed=seed)
        if problem.id not in seen:
            seen.add(problem.id)
            yield problem
        if len(seen) == count:
            return
    hint = "ask for fewer, or for another split"
    raise ConfigError(
        f"count = {count}: domain {domain.name!r} has only {len(seen)} different problems", hint
    )


def count_problems(spec: RunSpec) -> int:
    """How many problems the run has. Raises ConfigError."""
    if spec.problems.domain is None:
        return sum(1 for _ in problems_of(spec))
    load_domain(spec.problems.domain)
    return spec.problems.drawn


def read_problems(file: Path) -> list[Problem]:
    """The problems of a JSON, JSONL, CSV, TSV or Parquet file. Raises ConfigError.

    Each row has `question` or `problem`, and may have `problem_idx` or `id`, `answer`, `source`.
    """
    rows, is_json = read_rows(file), holds_json(file)
    problems = [
        _problem(row, f"row {number} of {file}", is_json) for number, row in enumerate(rows, 1)
    ]
    if not problems:
        raise ConfigError(
            f"{file} has no problems",
            "give rows with a `question` each, as JSON, JSONL, CSV or Parquet",
        )
    seen: dict[str, int] = {}
    for number, problem in enumerate(problems, 1):
        if (first := seen.setdefault(problem.id, number)) != number:
            place = f"row {number} of {file}"
            if problem.question == problems[first - 1].question:  # without an id its digest is one
                raise ConfigError(
                    f"{place} is the same question as row {first}",
                    "leave one out, or give each an `id`",
                )
            raise ConfigError(
                f"{place} has the id {problem.id!r} of row {first}", "ids are unique within a file"
            )
    return problems


def _problem(row: Any, place: str, is_json: bool) -> Problem:
    if not isinstance(row, dict):
        raise ConfigError(f"{place} is no object", "each row is an object with a `question`")
    question = row.get("question") or row.get("problem")
    if not isinstance(question, str) or not question.strip():
        names = ", ".join(f"`{name}`" for name in row) or "none"
        raise ConfigError(
            f"{place} has no text under `question` or `problem`",
            f"each row needs one of them; this one has: {names}",
        )
    if len(question) > MAX_QUESTION_CHARS:
        raise ConfigError(
            f"the question in {place} has {len(question)} characters; at most {MAX_QUESTION_CHARS}",
            "shorten it",
        )
    _check_characters(question, place, is_json)
    problem = Problem(
        id=_problem_id(row, question),
        question=question.strip(),
        answer=_optional_text(row.get("answer")),
        source=_optional_text(row.get("source") or row.get("contest")),
    )
    if not _is_unicode(f"{problem.question}{problem.answer}{problem.source}"):
        raise ConfigError(
            f"{place} has half of a surrogate pair in a text",
            "write the character itself, or both halves",
        )
    return problem


def _check_characters(question: str, place: str, is_json: bool) -> None:
    """Raise ConfigError for control characters, and in JSON for LaTeX commands written with one
    backslash.
    """
    undoubled = find_undoubled(question) if is_json else None
    found = undoubled or CONTROL.search(question)
    if found is None:
        return
    where = f"{place}, column {found.start() + 1} of its question: a {name_of(found[0][0])}"
    if is_json and (command := command_at(question, found.start())):
        raise ConfigError(
            rf"{where}, probably \{command} with one backslash", DOUBLE_IT.format(command)
        )
    raise ConfigError(where, "remove it")


def _problem_id(row: dict[str, Any], question: str) -> str:
    """The row's own id, with a digest where not all of it can be part of a key; without an id the
    question's digest.
    """
    found = row.get("id") if row.get("problem_idx") is None else row["problem_idx"]
    if found in (None, ""):
        return f"p{digest(question.strip())}"
    given = str(found)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-._")[:60]
    return slug if slug == given else f"{slug or 'p'}-{digest(given)}"


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _is_unicode(text: str) -> bool:
    """Whether the text can be written: JSON may hold half of a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
