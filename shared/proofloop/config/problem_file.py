"""The problems of a run: posed by a domain, or read from a file.

All rows of a file are checked before a run starts; an error names the number of the invalid row.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proofloop.config.given_files import given_cases
from proofloop.config.latex_in_json import command_at, find_undoubled, name_of
from proofloop.config.row_files import DOUBLE_IT, holds_json, lower_names, read_rows
from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.problems import Problems
from proofloop.errors import ConfigError
from proofloop.method.domains import Domain, load_domain
from proofloop.method.domains.base import SPLIT_BUCKETS, is_in_split
from proofloop.schema.records import Problem, digest

MAX_QUESTION_CHARS = 100_000
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
"""Characters that a question may not have. Tabs and line breaks are white space and allowed."""

SPLIT_HINT = (
    "add rows: of 10 questions 8 are for training, 1 for validation and 1 for test, by their"
    " digests"
)


def problems_of(spec: RunSpec) -> Iterator[Problem]:
    """The run's problems, in the same order each time; those of given cases only if they come from
    a file. Raises ConfigError.
    """
    section = spec.problems
    if section.domain is not None:
        yield from _drawn(load_domain(section.domain), spec)
    elif section.file is not None and section.split is not None:
        yield from _drawn(ProblemFile(spec.base / section.file), spec)
    elif section.file is not None:
        yield from _first(read_problems(spec.base / section.file), section)
    else:
        yield from (case.problem(number) for number, case in enumerate(given_cases(spec)))


class ProblemFile(Domain):
    """A file's problems as a domain without a checker. Each round poses all problems once, in an
    order drawn by the seed.
    """

    name = "file"

    def __init__(self, file: Path) -> None:
        problems = read_problems(file)
        self._file = file
        self._splits: dict[str, list[Problem]] = {}
        for split in SPLIT_BUCKETS:
            self._splits[split] = [each for each in problems if is_in_split(each.question, split)]
        self._round_name = ""
        self._round: list[Problem] = []

    def pose(self, index: int, *, split: str, seed: int) -> Problem:
        """Problem number `index` of the split. Raises ConfigError if the split is empty."""
        problems = self._splits[split]
        if not problems:
            raise ConfigError(f"{self._file} has no problem in the {split} split", SPLIT_HINT)
        number, place = divmod(index, len(problems))
        name = f"{split}/{seed}/{number}"
        if self._round_name != name:
            self._round_name = name
            self._round = random.Random(name).sample(problems, len(problems))
        return self._round[place]

    def count(self, split: str) -> int:
        return len(self._splits[split])


def _first(problems: list[Problem], section: Problems) -> list[Problem]:
    if section.count is not None and section.count > len(problems):
        raise ConfigError(
            f"[problems] count = {section.count}: {section.file} has only {len(problems)} problems",
            f"set count to {len(problems)} or less, or leave it out for all problems",
        )
    return problems[: section.count]


def _drawn(domain: Domain, spec: RunSpec) -> Iterator[Problem]:
    return pose_distinct(
        domain, spec.problems.drawn, split=spec.problems.split or "train", seed=spec.seed
    )


def pose_distinct(domain: Domain, count: int, *, split: str, seed: int) -> Iterator[Problem]:
    """The first `count` problems of a domain without repetitions. Raises ConfigError if it has
    fewer.
    """
    seen = set[str]()
    for index in range(10 * count):
        problem = domain.pose(index, split=split, seed=seed)
        if problem.id not in seen:
            seen.add(problem.id)
            yield problem
        if len(seen) == count:
            return
    raise ConfigError(
        f"count = {count}: the {split} split of domain {domain.name!r} has only"
        f" {len(seen)} different problems",
        f"set count to {len(seen)} or less, or choose another split",
    )


def count_problems(spec: RunSpec) -> int:
    """The number of the run's problems. Raises ConfigError."""
    if spec.problems.domain is None:
        return sum(1 for _ in problems_of(spec))
    load_domain(spec.problems.domain)
    return spec.problems.drawn


def read_problems(file: Path) -> list[Problem]:
    """The problems of a JSON, JSONL, CSV, TSV or Parquet file. Raises ConfigError.

    Each row has `question` or `problem`, and may have `problem_idx` or `id`, `answer`, `source`, in
    upper or lower case.
    """
    rows, is_json = read_rows(file), holds_json(file)
    problems = [
        _problem(row, f"row {number} of {file}", is_json) for number, row in enumerate(rows, 1)
    ]
    if not problems:
        raise ConfigError(
            f"{file} has no problems",
            "give rows with a `question` each, as JSON, JSONL, CSV, TSV or Parquet",
        )
    seen: dict[str, int] = {}
    for number, problem in enumerate(problems, 1):
        if (first := seen.setdefault(problem.id, number)) != number:
            place = f"row {number} of {file}"
            # without an id, the digest of the question is the id
            if problem.question == problems[first - 1].question:
                raise ConfigError(
                    f"{place} has the same question as row {first}",
                    "remove one of them, or give each row a different `id`",
                )
            raise ConfigError(
                f"{place} has the same id as row {first}: {problem.id!r}",
                "give each row a different `id`",
            )
    return problems


def _problem(row: Any, place: str, is_json: bool) -> Problem:
    if not isinstance(row, dict):
        raise ConfigError(
            f"{place} is not an object", "write each row as an object with a `question`"
        )
    row = lower_names(row)
    question = row.get("question") or row.get("problem")
    if not isinstance(question, str) or not question.strip():
        names = ", ".join(f"`{name}`" for name in row) or "none"
        raise ConfigError(
            f"{place} has no text under `question` or `problem`",
            f"give each row one of them; this row has: {names}",
        )
    if len(question) > MAX_QUESTION_CHARS:
        raise ConfigError(
            f"the question in {place} has {len(question)} characters; the most is"
            f" {MAX_QUESTION_CHARS}",
            "shorten it",
        )
    _check_characters(question, place, is_json)
    return Problem(
        id=_problem_id(row, question),
        question=question.strip(),
        answer=_optional_text(row.get("answer")),
        source=_optional_text(row.get("source") or row.get("contest")),
    )


def _check_characters(question: str, place: str, is_json: bool) -> None:
    """Raise ConfigError for control characters, and in JSON for LaTeX commands with one
    backslash.
    """
    undoubled = find_undoubled(question) if is_json else None
    found = undoubled or CONTROL.search(question)
    if found is None:
        return
    where = f"{place}, character {found.start() + 1} of its question: a {name_of(found[0][0])}"
    if is_json and (command := command_at(question, found.start())):
        raise ConfigError(
            rf"{where}, probably \{command} with one backslash", DOUBLE_IT.format(command)
        )
    raise ConfigError(where, "remove it")


def _problem_id(row: dict[str, Any], question: str) -> str:
    """The row's id; without one, the question's digest. An id that a key cannot hold is shortened
    and gets a digest.
    """
    found = row.get("id") if row.get("problem_idx") is None else row["problem_idx"]
    if found in (None, ""):
        return f"p{digest(question.strip())}"
    given = str(found)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-._")[:60]
    return slug if slug == given else f"{slug or 'p'}-{digest(given)}"


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)
