"""Compares two runs, or two versions of a generator, problem by problem.

Problems are the same if their questions are. Intervals are 95 % with problems as clusters. That of
a difference is Student's, over the paired problems.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from proofloop.errors import ConfigError
from proofloop.runs.figures import Clusters, Figure
from proofloop.runs.index.database import Index
from proofloop.runs.student import t95

VERSION_SIGN = "@"
"""RUN@VERSION names the proofs of one generator version in a run."""

EQUAL = 1e-9
"""Differences that are closer are equal: they differ by rounding alone."""


@dataclass(frozen=True)
class Side:
    """A run, or its proofs by one `version` of the generator."""

    run: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.run}{VERSION_SIGN}{self.version}" if self.version else self.run

    @classmethod
    def parse(cls, text: str) -> Side:
        run, _, version = text.partition(VERSION_SIGN)
        return cls(run, version)


@dataclass(frozen=True)
class ProblemOnSide:
    """The labeled proofs of a question on one side. `decided`: those with a score. `id`: the
    question's problem; in a run of given proofs, the first of its problems in alphabetical order.
    """

    id: str
    proofs: int
    decided: int
    accepted: int
    solved: bool
    score: float | None
    self_error: float | None
    tokens: int


Weight = Callable[[ProblemOnSide], int]


def _decided(side: ProblemOnSide) -> int:
    return side.decided


def _one(side: ProblemOnSide) -> int:
    return 1


@dataclass(frozen=True)
class ComparedProblem:
    """A problem on both sides; None on the side that lacks it."""

    question: str
    first: ProblemOnSide | None
    second: ProblemOnSide | None


@dataclass(frozen=True)
class ComparedFigure:
    """A figure on both sides. `difference`: second minus first, the mean over the problems that
    both have; None for fewer than two. `low` and `high`: its 95 % interval; None also if the
    difference is the same on all problems, which tells nothing of the noise.
    """

    name: str
    first: Figure
    second: Figure
    difference: float | None
    low: float | None
    high: float | None

    @property
    def is_clear(self) -> bool:
        """Whether there is an interval of the difference, and it leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """Two sides, their figures and their problems; those that differ most come first."""

    sides: tuple[Side, Side]
    figures: tuple[ComparedFigure, ...]
    problems: tuple[ComparedProblem, ...]


def compare(index: Index, first: Side, second: Side) -> Comparison:
    """Compare two sides. Raises ConfigError for a version without proofs."""
    found = [_problems_of(index, side) for side in (first, second)]
    questions = {**found[0], **found[1]}
    problems = [
        ComparedProblem(
            question=questions[name][0],
            first=found[0][name][1] if name in found[0] else None,
            second=found[1][name][1] if name in found[1] else None,
        )
        for name in questions
    ]
    return Comparison(
        sides=(first, second),
        figures=tuple(_figure(name, problems) for name in FIGURES),
        problems=tuple(sorted(problems, key=_by_difference)),
    )


_QUERY = """
SELECT question_digest, question, MIN(problems.id) AS id, COUNT(*) AS proofs,
    COUNT(score) AS decided, SUM(outcome = 'accepted') AS accepted, MAX(solved) AS solved,
    AVG(score) AS score, AVG(ABS(self_score - score)) AS self_error, SUM(tokens) AS tokens
FROM proofs JOIN problems ON problems.run = proofs.run AND problems.id = proofs.problem
WHERE proofs.run = ? AND (? = '' OR generator = ?)
GROUP BY question_digest ORDER BY MIN(sort_key)
"""
"""In a run of given proofs each proof has a problem of its own; a row is a question."""


def _problems_of(index: Index, side: Side) -> dict[str, tuple[str, ProblemOnSide]]:
    """By the question's digest: the question, and what the side has of it."""
    version = version_of(index, side)
    with index.connection() as connection:
        rows = connection.execute(_QUERY, (side.run, version, version)).fetchall()
    return {row["question_digest"]: (row["question"], _on_side(row)) for row in rows}


def _on_side(row: sqlite3.Row) -> ProblemOnSide:
    fields = {name: row[name] for name in ProblemOnSide.__dataclass_fields__}
    return ProblemOnSide(**{**fields, "solved": bool(row["solved"])})


def versions_of(index: Index, run: str) -> list[str]:
    """The versions of the generator that wrote labeled proofs."""
    with index.connection() as connection:
        query = "SELECT DISTINCT generator FROM proofs WHERE run = ? AND generator != '' ORDER BY 1"
        return [row[0] for row in connection.execute(query, (run,))]


def version_of(index: Index, side: Side) -> str:
    """The whole name of a version that is given by its name or its number; empty for a run."""
    if not side.version:
        return ""
    known = versions_of(index, side.run)
    for name in known:
        last = name.rpartition("/")[2]
        is_number = last.isdecimal() and side.version.isdecimal() and int(last) == int(side.version)
        if side.version in (name, last) or is_number:
            return name
    raise ConfigError(
        f"no labeled proof of run {side.run!r} is by generator version {side.version!r}",
        f"versions with labeled proofs: {', '.join(known) or 'none'}",
    )


FIGURES: dict[str, tuple[Callable[[ProblemOnSide], float | None], Weight]] = {
    "proofs accepted": (lambda each: each.accepted / max(1, each.decided), _decided),
    "mean score": (lambda each: each.score, _decided),
    "self-evaluation error": (lambda each: each.self_error, _decided),
    "problems with an accepted proof": (lambda each: float(each.accepted > 0), _one),
    "problems solved": (lambda each: float(each.solved), _one),
}
"""The figures by name: a problem's value, from 0 to 1, and how many cases it stands for."""


def _figure(name: str, problems: Sequence[ComparedProblem]) -> ComparedFigure:
    value, weight = FIGURES[name]
    differences = [
        after - before
        for each in problems
        if each.first and each.second
        if (before := value(each.first)) is not None and (after := value(each.second)) is not None
    ]
    return ComparedFigure(
        name,
        _measured((each.first for each in problems), value, weight),
        _measured((each.second for each in problems), value, weight),
        *_interval(differences),
    )


def _measured(
    sides: Iterable[ProblemOnSide | None],
    value: Callable[[ProblemOnSide], float | None],
    weight: Weight,
) -> Figure:
    clusters = Clusters()
    for side in sides:
        if side is not None and (found := value(side)) is not None:
            for _ in range(weight(side)):
                clusters.add(side.id, found)
    return clusters.figure()


def _interval(differences: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The mean difference of paired problems with its interval, which is cut at -1 and 1."""
    count = len(differences)
    if count < 2:
        return None, None, None
    mean = fmean(differences)
    if max(differences) - min(differences) < EQUAL:
        return mean, None, None
    noise = t95(count - 1) * stdev(differences) / math.sqrt(count)
    return mean, max(-1.0, mean - noise), min(1.0, mean + noise)


def _by_difference(problem: ComparedProblem) -> tuple[bool, float]:
    """Problems of both sides come first, then those whose mean scores differ most."""
    first, second = problem.first, problem.second
    if first is None or second is None:
        return True, 0.0
    return False, -abs((second.score or 0.0) - (first.score or 0.0))
