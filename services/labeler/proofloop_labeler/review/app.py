"""The grading pages as a Starlette application, which `proofloop ui` mounts.

They check no access: the application that mounts them does, and sets `request.state.person` to the
name of a person who has logged in.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from proofloop.errors import StoreError
from proofloop.store import Store
from proofloop.typeset.assets import FOLDER
from proofloop_labeler.review.cases import Cases
from proofloop_labeler.review.grading import Grading
from proofloop_labeler.review.lists import Lists
from proofloop_labeler.review.site import STATIC, NameMissing, Site


def grading_app(
    store: Store, cases: Cases, announce: Callable[[str], None], *, only: str | None = None
) -> Starlette:
    """The pages without access control. `announce` is called with a run that may have a new
    grade.
    """
    site = Site(store, cases, announce, only=only)
    lists, grading = Lists(site), Grading(site)
    routes = [
        Route("/", lists.runs),
        Route("/name", site.name),
        Route("/name", site.set_name, methods=["POST"]),
        Route("/style.css", site.style),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/typeset", StaticFiles(directory=FOLDER)),
        Route("/runs/{run}", lists.run),
        Route("/runs/{run}/next", lists.next),
        Route("/runs/{run}/disagreements", lists.disagreements),
    ]
    for subject in ("/runs/{run}/proofs/{proof}", "/runs/{run}/proofs/{proof}/{answer}"):
        routes += [
            Route(f"{subject}/undo", grading.undo, methods=["POST"]),
            Route(f"{subject}/reveal", grading.reveal, methods=["POST"]),
            Route(subject, grading.show),
            Route(subject, grading.save, methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        exception_handlers={
            NameMissing: site.ask_name,
            HTTPException: site.refuse,
            StoreError: site.refuse,
        },
    )
