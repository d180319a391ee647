"""The list of runs and curricula, and the page of a run with its table of problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proofloop.config.run_file import Prices, RunSpec
from proofloop.curriculum.status import Status, find_curriculum, read_status, runs_of
from proofloop.errors import ConfigError, CorruptObject
from proofloop.report import line_charts
from proofloop.report.run_charts import learning_charts
from proofloop.runs.index.comparing import versions_of
from proofloop.runs.index.tables import SHOWN, SORTS, Choice, Totals, problem_rows, totals
from proofloop.runs.index.told import told_by_counts
from proofloop.runs.planned import steps_of
from proofloop.schema import keys
from proofloop.schema.ids import is_single_call
from proofloop.ui.fresh_index import Filled
from proofloop.ui.site import Site, page_number, with_query

ROWS = 50
"""Problems on a page of the table."""


@dataclass(frozen=True)
class RunLine:
    """A run in the list."""

    spec: RunSpec
    totals: Totals
    planned: int | None
    filled: Filled

    @property
    def is_complete(self) -> bool:
        return self.planned is not None and self.totals.proofs >= self.planned > 0


@dataclass(frozen=True)
class CurriculumLine:
    """A curriculum in the list, with the names of its runs."""

    name: str
    status: Status
    runs: tuple[str, ...]


def runs(site: Site, request: Request) -> Response:
    """Lists the runs of a curriculum below it, and those of single calls in a list of their own."""
    unreadable: dict[str, str] = {}
    curricula = list(_curricula(site, unreadable))
    of_curricula = {run for line in curricula for run in line.runs}
    own = [name for name in site.runs() if name not in of_curricula]
    names = [name for name in own if not is_single_call(name)]
    filled = site.index.look_at_all(names)
    return site.page(
        "runs",
        runs=list(_lines(site, zip(names, filled, strict=True), unreadable)),
        curricula=curricula,
        unreadable=unreadable,
        single_calls=[name for name in own if is_single_call(name)],
        is_reading=any(each.done < each.total and not each.problem for each in filled),
    )


def _curricula(site: Site, unreadable: dict[str, str]) -> Iterator[CurriculumLine]:
    """The readable curricula. Adds to `unreadable` the reasons of the others by name."""
    for key in () if site.only else site.store.list(keys.CURRICULA):
        name = keys.name_of(key)
        try:
            spec = find_curriculum(site.store, name)
        except CorruptObject as error:
            unreadable[name] = str(error)
            continue
        if spec is not None:
            runs = tuple(runs_of(site.store, spec.name))
            yield CurriculumLine(spec.name, read_status(site.store, spec), runs)


def _lines(
    site: Site, runs: Iterable[tuple[str, Filled]], unreadable: dict[str, str]
) -> Iterator[RunLine]:
    """The readable runs. Adds to `unreadable` the reasons of the others by name."""
    for name, filled in runs:
        try:
            yield _line(site, name, filled)
        except CorruptObject as error:
            unreadable[name] = str(error)


def _line(site: Site, name: str, filled: Filled) -> RunLine:
    spec = site.spec(name)
    return RunLine(spec, totals(site.index.index, name), site.live.planned(spec), filled)


def run(site: Site, request: Request) -> Response:
    spec = site.run(request)
    site.index.look(spec.name)
    choice = _choice(request)
    number = page_number(request)
    rows, matching = problem_rows(
        site.index.index,
        spec.name,
        choice,
        spec.prices,
        limit=ROWS,
        offset=(number - 1) * ROWS,
    )
    best = {row.best for row in rows if row.best and row.best_score is not None}
    shown = [row.id for row in rows]
    told = told_by_counts(site.index.index, spec.name, shown, by="problem", best=best)
    site.record_reading(request, spec.name, best | told)
    site.index.count(spec.name)
    charts = learning_charts(steps_of(site.store, spec.name, spec.training.roles))
    return site.page(
        "run",
        spec=spec,
        status=site.live.status(spec),
        rows=rows,
        matching=matching,
        first=(number - 1) * ROWS + 1,
        columns=list(_columns(spec)),
        groups=SHOWN,
        choice=choice,
        number=number,
        pages=-(-matching // ROWS),
        versions=versions_of(site.index.index, spec.name),
        charts=charts,
        line_charts=line_charts,
        link=partial(with_query, request),
    )


def _columns(spec: RunSpec) -> Iterator[tuple[str, str]]:
    """The columns that the run can fill, with their titles."""
    for name in SORTS:
        is_empty = (name == "cost" and spec.prices == Prices()) or (
            name == "outranked" and not spec.search.rounds
        )
        if not is_empty:
            yield name, "best proof" if name == "best" else name


def _choice(request: Request) -> Choice:
    """Raises HTTPException 400 for an unknown column or group."""
    query = request.query_params
    try:
        return Choice.of(
            query.get("sort", "problem"), query.get("show", "all"), query.get("search", "")
        )
    except ConfigError as error:
        raise HTTPException(400, str(error)) from error
