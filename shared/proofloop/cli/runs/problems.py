"""`proofloop runs problems` and `compare`: tables by problem, read from the store's index."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from proofloop.cli.common import (
    JsonOption,
    RunArgument,
    StoreOption,
    emit,
    need_run,
    open_store,
)
from proofloop.config.run_file import Prices
from proofloop.config.settings import load_settings
from proofloop.runs.index import Index, open_index
from proofloop.runs.index.comparing import (
    ComparedFigure,
    ComparedProblem,
    Comparison,
    ProblemOnSide,
    Side,
    compare,
)
from proofloop.runs.index.counting import count_costs
from proofloop.runs.index.filling import fill
from proofloop.runs.index.tables import SHOWN, SORTS, Choice, ProblemRow, problem_rows
from proofloop.store import Store

EXCERPT = 60
"""Characters of a question in a table; --json has all."""


def problems(
    run: RunArgument,
    sort: Annotated[
        str,
        typer.Option(
            "--sort", help=f"A column, in descending order as -COLUMN: {', '.join(SORTS)}."
        ),
    ] = "problem",
    show: Annotated[
        str, typer.Option("--show", help=f"Which problems: {', '.join(SHOWN)}.")
    ] = "all",
    search: Annotated[
        str, typer.Option("--search", help="Only problems with this text in id or question.")
    ] = "",
    costs: Annotated[
        bool,
        typer.Option(
            "--costs", help="Count all calls of all proofs, which reads each answer once."
        ),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most rows.")] = 1000,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a row for each problem of a run: its labeled proofs by outcome, the best proof, the
    cost.

    The best proof is the solved one, else the one with the highest label, then the highest
    self-score; a search names its own. tokens: those of the proofs. cost: all calls of the proofs
    whose calls were counted, at the run's prices.
    """
    data = open_store(store, must_exist=True)
    spec = need_run(data, run)
    choice = Choice.of(sort, show, search)
    index = filled_index(data, run)
    if costs:
        for left in count_costs(index, data, run):
            _tell(f"counting the calls of {left} proofs")
    found, matching = problem_rows(index, run, choice, spec.prices, limit=limit)
    if matching > len(found):
        print(f"the first {len(found)} of {matching} problems; see --limit", file=sys.stderr)
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return
    title = f"problems of {run}{_filters(choice)}"
    emit([_row(row, spec.prices) for row in found], as_json=False, title=title)


def _filters(choice: Choice) -> str:
    show = f"--show {choice.show}" if choice.show != "all" else ""
    search = f"--search {choice.search}" if choice.search else ""
    filters = " ".join(filter(None, (show, search)))
    return f" with {filters}" if filters else ""


def filled_index(store: Store, run: str) -> Index:
    """The index of the store, up to date with this run."""
    index = open_index(store, load_settings().cache)
    fill(index, store, run, lambda done, total: _tell(f"reading labels: {done} of {total}"))
    return index


def _tell(text: str) -> None:
    """Show one line that changes, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K\r", end="", file=sys.stderr, flush=True)


def _row(row: ProblemRow, prices: Prices) -> dict[str, Any]:
    shown = {
        "problem": row.id,
        "proofs": row.proofs,
        "accepted": row.accepted,
        "rejected": row.rejected,
        "undecided": row.undecided,
        "unreadable": row.unreadable,
        "outranked": row.outranked,
        "solved": "yes" if row.solved else "no",
        "best": row.best,
        "score": row.best_score,
        "self_score": row.best_self_score,
        "tokens": row.tokens,
    }
    if prices != Prices():
        shown["cost"] = row.cost
    return {**shown, "question": _excerpt(row.question)}


def _excerpt(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"


def compare_runs(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A run, or RUN@VERSION: its proofs by one generator version."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The other run or version.")],
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most problems.")] = 50,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs, or two versions of a generator, on their labeled proofs.

    Problems with the same question are the same problem. The difference is B minus A over the
    problems of both, with its 95 % interval (Student's t). There is no interval if the difference
    is the same on all problems. The problems that differ most come first.
    """
    data = open_store(store, must_exist=True)
    sides = Side.parse(first), Side.parse(second)
    for side in sides:
        need_run(data, side.run)
        index = filled_index(data, side.run)
    found = compare(index, *sides)
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
        return
    emit([_figure_row(each) for each in found.figures], as_json=False, title="figures")
    rows = [_problem_row(each) for each in found.problems[:limit]]
    emit(rows, as_json=False, title="problems")


def _as_json(found: Comparison) -> dict[str, Any]:
    return {
        "sides": [str(side) for side in found.sides],
        "figures": [
            {
                "figure": each.name,
                "a": each.first.model_dump(),
                "b": each.second.model_dump(),
                "difference": each.difference,
                "low": each.low,
                "high": each.high,
            }
            for each in found.figures
        ],
        "problems": [asdict(each) for each in found.problems],
    }


def _figure_row(figure: ComparedFigure) -> dict[str, Any]:
    return {
        "figure": figure.name,
        "a": str(figure.first),
        "b": str(figure.second),
        "difference": _difference(figure),
    }


def _difference(figure: ComparedFigure) -> str | None:
    if figure.difference is None:
        return None
    if figure.low is None or figure.high is None:
        return f"{figure.difference:+.3f} [not measured]"
    return f"{figure.difference:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def _problem_row(problem: ComparedProblem) -> dict[str, Any]:
    some = problem.first or problem.second
    return {
        "problem": some.id if some else None,
        **_side_cells("a", problem.first),
        **_side_cells("b", problem.second),
        "question": _excerpt(problem.question),
    }


def _side_cells(name: str, side: ProblemOnSide | None) -> dict[str, Any]:
    return {
        f"{name}_accepted": f"{side.accepted}/{side.proofs}" if side else None,
        f"{name}_score": side.score if side else None,
        f"{name}_solved": ("yes" if side.solved else "no") if side else None,
    }
