"""The application: its addresses, the check of every request, and the pages of errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from proofloop.errors import HintedError, StoreError
from proofloop.report.page import style
from proofloop.typeset.assets import FOLDER
from proofloop.ui.access import Access, guarded_app
from proofloop.ui.answers import answer
from proofloop.ui.comparison import comparison, curriculum
from proofloop.ui.events import events
from proofloop.ui.problem_page import problem
from proofloop.ui.proof_page import proof
from proofloop.ui.run_page import run, runs
from proofloop.ui.site import GRADING, Site, refusal_of

STATIC = Path(__file__).parent / "static"

PAGES: dict[str, Callable[[Site, Request], Response]] = {
    "/": runs,
    "/compare": comparison,
    "/curricula/{curriculum}": curriculum,
    "/runs/{run}": run,
    "/runs/{run}/problems/{problem}": problem,
    "/runs/{run}/proofs/{proof}": proof,
    "/runs/{run}/proofs/{proof}/{name}": answer,
}


def make_app(
    site: Site,
    stopping: threading.Event,
    access: Access,
    grading: ASGIApp | None = None,
) -> Starlette:
    """The application behind access control, with the grading pages if there are any."""
    routes: list[BaseRoute] = [Route(path, partial(page, site)) for path, page in PAGES.items()]
    if grading is not None:
        routes.append(Mount(GRADING, grading))
    app = Starlette(
        routes=[
            *routes,
            Route("/runs/{run}/events", partial(events, site, stopping)),
            Route("/static/style.css", stylesheet),
            Mount("/static/typeset", StaticFiles(directory=FOLDER)),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={
            HTTPException: partial(_refuse, site),
            StoreError: partial(_refuse, site),
            HintedError: partial(_refuse, site),
        },
    )
    return guarded_app(app, access)


def stylesheet(request: Request) -> Response:
    """The style of the report, then that of the pages."""
    return Response(_style(), media_type="text/css")


@lru_cache(maxsize=1)
def _style() -> str:
    return f"{style()}\n{(STATIC / 'ui.css').read_text('utf-8')}"


def _refuse(site: Site, request: Request, error: Exception) -> Response:
    code, text = refusal_of(error)
    return site.page("refusal", code=code, text=text)
