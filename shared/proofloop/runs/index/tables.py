"""The tables of the index: a run's totals, a row for each problem, a row for each proof."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from proofloop.config.run_file import Prices
from proofloop.errors import ConfigError
from proofloop.runs.costs import HOUR_S, MILLION
from proofloop.runs.index.database import BEST_FIRST, Index
from proofloop.schema.records import MODEL_ROLES

Sort = Literal[
    "problem",
    "proofs",
    "accepted",
    "rejected",
    "undecided",
    "unreadable",
    "outranked",
    "best",
    "tokens",
    "cost",
]
Show = Literal["all", "solved", "accepted", "open", "undecided"]
T = TypeVar("T", bound=str)

MOST_SEARCHED = 1_000
"""The most characters to search for. SQLite has a limit too."""
SORTS: tuple[Sort, ...] = get_args(Sort)
SHOWN: tuple[Show, ...] = get_args(Show)


@dataclass(frozen=True)
class Choice:
    """The problems to show, and their order."""

    sort: Sort = "problem"
    descending: bool = False
    show: Show = "all"
    search: str = ""

    @classmethod
    def of(cls, sort: str, show: str, search: str) -> Choice:
        """Raises ConfigError for an unknown column or group, and for a long text to search for;
        `-column` sorts in descending order.
        """
        if len(search) > MOST_SEARCHED:
            raise ConfigError(
                f"the text to search for has {len(search)} characters; the most is {MOST_SEARCHED}",
                "search for a part of it",
            )
        name = sort.removeprefix("-")
        return cls(
            sort=_one_of(SORTS, name, "sort"),
            descending=sort.startswith("-"),
            show=_one_of(SHOWN, show, "show"),
            search=search.strip(),
        )


def _one_of(known: tuple[T, ...], value: str, what: str) -> T:
    for each in known:
        if each == value:
            return each
    raise ConfigError(f"{what} = {value[:60]!r} is unknown", f"one of {', '.join(known)}")


@dataclass(frozen=True)
class ProblemRow:
    """A problem of a run with its labeled proofs.

    `best`: the best proof, None without a label. `tokens`: of the proofs. `cost`: money for all
    calls of the `counted` proofs; None without prices.
    """

    id: str
    question: str
    proofs: int
    accepted: int
    rejected: int
    undecided: int
    unreadable: int
    outranked: int
    solved: bool
    best: str | None
    best_score: float | None
    best_self_score: float | None
    rounds: int | None
    tokens: int
    counted: int
    cost: float | None


@dataclass(frozen=True)
class ProofRow:
    """A labeled proof. `tokens`: of the proof, without its critiques."""

    id: str
    problem: str
    outcome: str
    kind: str
    score: float | None
    solved: bool
    labeled_by: str
    self_score: float | None
    verdict: str
    generator: str
    parents: tuple[str, ...]
    tokens: int


@dataclass(frozen=True)
class Totals:
    """The counts of a run's labeled proofs."""

    problems: int
    solved: int
    accepted: int
    proofs: int
    tokens: int
    outcomes: Mapping[str, int] = field(default_factory=dict)


_PROBLEMS = f"""
WITH prices(role, prompt, completion, hour) AS (VALUES (?, ?, ?, ?), (?, ?, ?, ?), (?, ?, ?, ?)),
wanted(run, problem) AS (VALUES (?, ?)),
grouped AS (
    SELECT proofs.problem, COUNT(*) AS proofs, SUM(outcome = 'accepted') AS accepted,
        SUM(outcome = 'rejected') AS rejected, SUM(outcome = 'undecided') AS undecided,
        SUM(outcome = 'unreadable') AS unreadable, SUM(outcome = 'outranked') AS outranked,
        MAX(solved) AS solved, SUM(tokens) AS tokens
    FROM wanted JOIN proofs ON proofs.run = wanted.run
        AND proofs.problem = COALESCE(wanted.problem, proofs.problem)
    GROUP BY proofs.problem
),
spent AS (
    SELECT problem, SUM(role = 'generator') AS counted,
        SUM(prompt_tokens * prompt / {MILLION} + completion_tokens * completion / {MILLION}
            + engine_seconds * hour / {HOUR_S}) AS cost
    FROM costs JOIN prices USING (role) WHERE run = (SELECT run FROM wanted) GROUP BY problem
),
found AS (
    SELECT problems.run, problems.id, problems.sort_key, problems.question,
        COALESCE(proofs, 0) AS proofs, COALESCE(accepted, 0) AS accepted,
        COALESCE(rejected, 0) AS rejected, COALESCE(undecided, 0) AS undecided,
        COALESCE(unreadable, 0) AS unreadable,
        COALESCE(outranked, 0) AS outranked, COALESCE(solved, 0) AS solved,
        COALESCE(searches.best, (
            SELECT id FROM proofs WHERE run = problems.run AND problem = problems.id
            ORDER BY {BEST_FIRST} LIMIT 1
        )) AS best,
        rounds, COALESCE(tokens, 0) AS tokens, COALESCE(counted, 0) AS counted, cost
    FROM wanted JOIN problems ON problems.run = wanted.run
        AND problems.id = COALESCE(wanted.problem, problems.id)
    LEFT JOIN grouped ON grouped.problem = problems.id
    LEFT JOIN spent ON spent.problem = problems.id
    LEFT JOIN searches ON searches.run = problems.run AND searches.problem = problems.id
)
SELECT found.*, best_proof.score AS best_score, best_proof.self_score AS best_self_score,
    COUNT(*) OVER () AS matching
FROM found LEFT JOIN proofs AS best_proof ON best_proof.run = found.run AND best_proof.id = best
"""
_WHERE: Mapping[Show, str] = {
    "all": "TRUE",
    "solved": "found.solved",
    "accepted": "found.accepted > 0",
    "open": "found.accepted = 0",
    "undecided": "found.undecided > 0",
}
_ORDER: Mapping[Sort, str] = {
    "problem": "found.sort_key {}",
    "best": "found.solved {}, best_score {}, best_self_score {}",
    **{name: f"found.{name} {{}}" for name in SORTS if name not in ("problem", "best")},
}


def problem_rows(
    index: Index,
    run: str,
    choice: Choice,
    prices: Prices,
    *,
    limit: int = -1,
    offset: int = 0,
) -> tuple[list[ProblemRow], int]:
    """The chosen problems from number `offset` on, and how many there are in all."""
    direction = "DESC" if choice.descending else "ASC"
    order = _ORDER[choice.sort].replace("{}", direction)
    query = (
        f"{_PROBLEMS} WHERE {_WHERE[choice.show]}"
        " AND (found.id LIKE ? ESCAPE '\\' OR found.question LIKE ? ESCAPE '\\')"
        f" ORDER BY {order}, found.sort_key LIMIT ? OFFSET ?"
    )
    pattern = f"%{_escaped(choice.search)}%"
    values = [*_price_values(prices), run, None, pattern, pattern, limit, offset]
    with index.connection() as connection:
        rows = connection.execute(query, values).fetchall()
    is_priced = prices != Prices()
    return [_problem(row, is_priced) for row in rows], rows[0]["matching"] if rows else 0


def problem_row(index: Index, run: str, problem: str, prices: Prices) -> ProblemRow | None:
    """The row of one problem."""
    values = [*_price_values(prices), run, problem]
    with index.connection() as connection:
        row = connection.execute(_PROBLEMS, values).fetchone()
    return _problem(row, prices != Prices()) if row else None


def _price_values(prices: Prices) -> list[object]:
    found: list[object] = []
    for role in MODEL_ROLES:
        of = prices.of(role)
        found += [role, of.per_million_prompt_tokens, of.per_million_completion_tokens]
        found.append(of.per_engine_hour)
    return found


def _escaped(text: str) -> str:
    """The text as a pattern of LIKE that matches only itself."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return text


def _problem(row: sqlite3.Row, is_priced: bool) -> ProblemRow:
    names = [name for name in ProblemRow.__dataclass_fields__ if name not in ("solved", "cost")]
    cost = row["cost"] if is_priced and row["counted"] else None
    return ProblemRow(**{name: row[name] for name in names}, solved=bool(row["solved"]), cost=cost)


def proofs_of(index: Index, run: str, problem: str) -> list[ProofRow]:
    """The labeled proofs of a problem, best first."""
    with index.connection() as connection:
        rows = connection.execute(
            f"SELECT * FROM proofs WHERE run = ? AND problem = ? ORDER BY {BEST_FIRST}",
            (run, problem),
        ).fetchall()
    return [_proof(row) for row in rows]


def _proof(row: sqlite3.Row) -> ProofRow:
    fields = {name: row[name] for name in ProofRow.__dataclass_fields__}
    parents = tuple(json.loads(row["parents"]))
    return ProofRow(**{**fields, "parents": parents, "solved": bool(row["solved"])})


def totals(index: Index, run: str) -> Totals:
    """The counts of a run."""
    with index.connection() as connection:
        row = connection.execute(
            "SELECT COUNT(*) AS proofs, COALESCE(SUM(tokens), 0) AS tokens,"
            " COUNT(DISTINCT CASE WHEN solved THEN problem END) AS solved,"
            " COUNT(DISTINCT CASE WHEN outcome = 'accepted' THEN problem END) AS accepted"
            " FROM proofs WHERE run = ?",
            (run,),
        ).fetchone()
        outcomes = connection.execute(
            "SELECT outcome, COUNT(*) FROM proofs WHERE run = ? GROUP BY outcome ORDER BY outcome",
            (run,),
        ).fetchall()
        (problems,) = connection.execute(
            "SELECT COUNT(*) FROM problems WHERE run = ?", (run,)
        ).fetchone()
    return Totals(problems=problems, **row, outcomes={name: count for name, count in outcomes})
