"""A run's problems: posed by a domain, or read from a JSON or JSONL file. A bad row is named with its number before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proofloop.domains import load_domain
from proofloop.errors import ConfigError
from proofloop.records import Problem, digest
from proofloop.runspec import RunSpec

MAX_QUESTION_CHARS = 100_000


def problems_of(spec: RunSpec) -> Iterator[Problem]:
    """The run's problems in order, the same each time. Raises ConfigError."""
    if spec.problems.domain is not None:
        domain = load_domain(spec.problems.domain)
        for index in range(spec.problems.count):
            yield domain.pose(index, split=spec.problems.split, seed=spec.seed)
    elif spec.problems.file is not None:
        yield from read_problems(spec.base / spec.problems.file)


def count_problems(spec: RunSpec) -> int:
    """How many problems the run has."""
    return spec.problems.count if spec.problems.domain is not None else sum(1 for _ in problems_of(spec))


def read_problems(file: Path) -> list[Problem]:
    """The problems of a JSON list or JSONL file: `question` or `problem`; optional `problem_idx` or `id`, `answer`, `source`. Raises ConfigError."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"problem file {file} cannot be read: {error}", "give a JSON list or a JSONL file in UTF-8") from error
    problems = [_problem(row, number, file) for number, row in enumerate(_rows(text, file), 1)]
    if not problems:
        raise ConfigError(f"{file} has no problems", "give a JSON list or a JSONL file with a `question` in each row")
    seen: set[str] = set()
    for number, problem in enumerate(problems, 1):
        if problem.id in seen:
            raise ConfigError(f"row {number} of {file} has the id {problem.id!r} again", "ids are unique within a file")
        seen.add(problem.id)
    return problems


def _rows(text: str, file: Path) -> list[Any]:
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise ConfigError(f"{file} is neither a JSON list nor JSONL: {error}", "each row is an object with a `question`") from error


def _problem(row: Any, number: int, file: Path) -> Problem:
    place = f"row {number} of {file}"
    if not isinstance(row, dict):
        raise ConfigError(f"{place} is no object", "each row is an object with a `question`")
    question = row.get("question") or row.get("problem")
    if not isinstance(question, str) or not question.strip():
        raise ConfigError(f"{place} has no text under `question` or `problem`", "each row needs one of them")
    if len(question) > MAX_QUESTION_CHARS:
        raise ConfigError(f"the question in {place} has {len(question)} characters; at most {MAX_QUESTION_CHARS}", "shorten it")
    return Problem(
        id=_problem_id(row, question),
        question=question.strip(),
        answer=_optional_text(row.get("answer")),
        source=_optional_text(row.get("source") or row.get("contest")),
    )


def _problem_id(row: dict[str, Any], question: str) -> str:
    """The row's own id as far as it can be part of a key, else a digest of the question."""
    given = row.get("problem_idx", row.get("id"))
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", str(given)).strip("-._")[:60] if given is not None else ""
    return slug or f"p{digest(question)}"


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)
