"""The shared parts of all pages: the store, its index, and the templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError, CorruptObject, NotFound, StoreError
from proofloop.report.page import environment
from proofloop.report.titles import KIND_MEANINGS, KIND_TITLES
from proofloop.runs.grading.openings import EVERYTHING, record_openings
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.ids import check_id
from proofloop.store import Store
from proofloop.typeset.assets import head
from proofloop.typeset.markdown import typeset, typeset_line
from proofloop.typeset.printable import printable
from proofloop.ui.access import person_of
from proofloop.ui.fresh_index import FreshIndex
from proofloop.ui.live import LiveRuns

GRADING = "/grade"
"""Where the grading pages are mounted."""

EXCERPT = 240
"""Characters of a question in a table."""


@dataclass
class Site:
    """The store and the templates of the pages. Safe to share between threads.

    `only`: the one run that is shown. `has_grading`: whether the grading pages are there.
    """

    store: Store
    index: FreshIndex
    live: LiveRuns
    only: str | None = None
    has_grading: bool = False
    templates: jinja2.Environment = field(default_factory=lambda: _templates())

    def page(self, template: str, *, code: int = 200, **names: Any) -> Response:
        return HTMLResponse(self.render(template, **names).encode("utf-8", "replace"), code)

    def render(self, template: str, **names: Any) -> str:
        found = self.templates.get_template(f"{template}.html.jinja")
        grading = GRADING if self.has_grading else ""
        return found.render(grading=grading, store=str(self.store), **names)

    def runs(self) -> list[str]:
        """The names of all runs that are shown."""
        if self.only:
            return [self.only]
        return [keys.name_of(key) for key in self.store.list(keys.SPECS)]

    def record_reading(self, request: Request, run: str, proof_ids: Iterable[str]) -> None:
        """Record that a grader reads what others think of proofs: later grades are not blind."""
        if self.has_grading and (person := person_of(request)):
            record_openings(self.store, run, proof_ids, EVERYTHING, by=person)

    def run(self, request: Request) -> RunSpec:
        """The run that the address names. Raises HTTPException 404."""
        return self.spec(named(request, "run"))

    def spec(self, run: str) -> RunSpec:
        spec = find_spec(self.store, run) if self.only in (None, run) else None
        if spec is None:
            raise HTTPException(404, f"No run named {run} in this store.")
        return spec


def refusal_of(error: Exception) -> tuple[int, str]:
    """The status and the text of the page for an error."""
    match error:
        case HTTPException():
            return error.status_code, error.detail
        case NotFound():
            return 404, f"The store has no {error}."
        case CorruptObject():
            return 500, f"An object in the store is damaged: {error}"
        case StoreError():
            return 503, f"The store is unavailable: {error}"
    return 503, str(error)  # the index


def _templates() -> jinja2.Environment:
    templates = environment("proofloop.ui.templates")
    templates.filters.update(
        typeset=typeset,
        typeset_line=typeset_line,
        printable=printable,
        excerpt=excerpt,
        query=urlencode,
    )
    templates.globals.update(
        typeset_head=head("/static/typeset"),
        kind_titles=KIND_TITLES,
        kind_meanings=KIND_MEANINGS,
    )
    return templates


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]} …"


def named(request: Request, what: str) -> str:
    """An id in the address. Raises HTTPException 404 for what cannot be one."""
    try:
        return check_id(request.path_params[what], what)
    except ConfigError as error:
        raise HTTPException(404, error.problem) from error


def page_number(request: Request) -> int:
    """The number of the table's page in the address, from 1."""
    text = request.query_params.get("page", "1")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 9 else 1


def with_query(request: Request, **changes: object) -> str:
    """The address's query with other values; None leaves a name out."""
    query: Mapping[str, object] = {**request.query_params, **changes}
    return "?" + urlencode({name: value for name, value in query.items() if value is not None})
