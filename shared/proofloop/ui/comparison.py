"""Two runs or versions side by side, and a curriculum with its stages, gates and curves."""

from __future__ import annotations

from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proofloop.curriculum.status import find_curriculum
from proofloop.errors import ConfigError
from proofloop.report import line_charts, read_curriculum, titles
from proofloop.report.page import curriculum_names
from proofloop.runs.index.comparing import (
    Comparison,
    Side,
    compare,
    version_of,
    versions_of,
)
from proofloop.runs.index.told import told_by_counts
from proofloop.ui.access import POLICY
from proofloop.ui.fresh_index import Filled
from proofloop.ui.site import Site, named, page_number, with_query

ROWS = 100
"""Problems on a page of the comparison."""


def comparison(site: Site, request: Request) -> Response:
    query = request.query_params
    sides = Side.parse(query.get("a", "").strip()), Side.parse(query.get("b", "").strip())
    found: Comparison | None = None
    filled: dict[str, Filled] = {}
    problem = ""
    if all(side.run for side in sides):
        for side in sides:
            site.spec(side.run)
            filled[side.run] = site.index.look(side.run)
        try:
            found = compare(site.index.index, *sides)
        except ConfigError as error:
            problem = str(error)
    number = page_number(request)
    rows = found.problems[(number - 1) * ROWS : number * ROWS] if found else ()
    questions = [row.question for row in rows]
    for side in sides if found else ():
        version = version_of(site.index.index, side)
        told = told_by_counts(
            site.index.index, side.run, questions, by="question", generator=version
        )
        site.record_reading(request, side.run, told)
    return site.page(
        "compare",
        sides=sides,
        choices=_choices(site, sides),
        found=found,
        filled=filled,
        problem=problem,
        rows=rows,
        number=number,
        pages=-(-len(found.problems) // ROWS) if found else 0,
        link=partial(with_query, request),
    )


def _choices(site: Site, sides: tuple[Side, Side]) -> list[str]:
    """All runs, and the versions of the chosen ones."""
    runs = site.runs()
    versions = [
        str(Side(run, version))
        for run in dict.fromkeys(side.run for side in sides if side.run in runs)
        for version in versions_of(site.index.index, run)
    ]
    return [*runs, *versions]


def curriculum(site: Site, request: Request) -> Response:
    name = named(request, "curriculum")
    spec = None if site.only else find_curriculum(site.store, name)
    if spec is None:
        raise HTTPException(404, f"No curriculum named {name} in this store.")
    data = read_curriculum(site.store, spec)
    response = site.page(
        "curriculum", titles=titles, line_charts=line_charts, **curriculum_names(data)
    )
    # the charts set their least width in an attribute; no model's text is on this page
    response.headers["Content-Security-Policy"] = f"{POLICY}; style-src-attr 'unsafe-inline'"
    return response
