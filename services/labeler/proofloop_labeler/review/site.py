"""The shared parts of all pages: templates, the person, the run, and the pages for errors.

Every page works under any prefix: its links begin with the prefix of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from proofloop.errors import ConfigError
from proofloop.report.numbers import count, score
from proofloop.report.page import environment, style
from proofloop.runs.grading.openings import openings, record_opening, what_others_think
from proofloop.schema.ids import check_id
from proofloop.store import Store
from proofloop.typeset.assets import head
from proofloop.typeset.markdown import typeset, typeset_line
from proofloop.typeset.printable import printable
from proofloop.ui.access import MAX_NAME, NAME_COOKIE, name_problem, person_of
from proofloop.ui.site import refusal_of
from proofloop_labeler.review.cases import Cases
from proofloop_labeler.review.tasks import Subject

STATIC = Path(__file__).parent / "static"
NAME_KEPT_S = 180 * 24 * 3600


class NameMissing(Exception):
    """The page needs the person's name first."""


class Site:
    """The pages of one store, or of its one run `only`. `announce` is called with a run that may
    have a new grade.
    """

    def __init__(
        self, store: Store, cases: Cases, announce: Callable[[str], None], *, only: str | None
    ) -> None:
        self.store = store
        self.cases = cases
        self.announce = announce
        self.only = only
        self._templates = environment("proofloop_labeler.review.templates")
        self._templates.filters.update(
            score=score, count=count, printable=printable, quote=quote, moment=_moment
        )
        self._templates.globals.update(typeset=typeset, typeset_line=typeset_line)

    def page(
        self, template: str, request: Request, *, status: int = 200, **names: Any
    ) -> HTMLResponse:
        base = base_of(request)
        page = self._templates.get_template(f"{template}.html.jinja").render(
            **names,
            base=base,
            only=self.only,
            me=person_of(request),
            is_logged_in=bool(_logged_in(request)),
            typeset_head=head(f"{base}/typeset"),
        )
        return HTMLResponse(page.encode("utf-8", "replace"), status)

    def style(self, request: Request) -> Response:
        own = (STATIC / "review.css").read_text("utf-8")
        return Response(f"{style()}\n{own}", media_type="text/css")

    def person(self, request: Request) -> str:
        """The name of the person. Raises NameMissing."""
        if name := person_of(request):
            return name
        raise NameMissing

    def reveals(self, run: str, subject: Subject, *, to: str, is_graded: bool) -> bool:
        """Whether a page shows this person what others think of the proof or critique: after the
        first grade, or once they opened it. Records that they see it.
        """
        what = what_others_think(subject.critique)
        where = self.store, run, subject.proof_id
        is_open = is_graded or what in openings(*where, by=to)
        if is_open:
            record_opening(*where, what, by=to)
        return is_open

    def run(self, request: Request) -> str:
        run = _id(request, "run")
        if self.only not in (None, run) or not self.cases.has_run(run):
            raise HTTPException(404, f"No run named {run} in this store.")
        return run

    def ask_name(self, request: Request, error: Exception) -> Response:
        if request.method == "POST":
            raise HTTPException(403, "Enter your name first. Nothing was saved.") from error
        return self._name_page(request, to=_path(request))

    def name(self, request: Request) -> Response:
        return self._name_page(request, to=request.query_params.get("to", ""))

    def _name_page(
        self, request: Request, *, to: str, problem: str = "", status: int = 200
    ) -> Response:
        return self.page("name", request, status=status, to=to, problem=problem, max_name=MAX_NAME)

    async def set_name(self, request: Request) -> Response:
        """Keep the name in a cookie, and return to the page that requested it."""
        sent = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
        name, to = (" ".join(sent.get(field, [""])[0].split()) for field in ("name", "to"))
        if problem := name_problem(name):
            return self._name_page(request, to=to, problem=problem, status=400)
        response = RedirectResponse(_local(to) or f"{base_of(request)}/", status_code=303)
        response.set_cookie(
            NAME_COOKIE,
            quote(name),
            max_age=NAME_KEPT_S,
            path="/",  # the reading pages record what a grader reads
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def refuse(self, request: Request, error: Exception) -> Response:
        """The page for an error, with a link back."""
        status, text = refusal_of(error)
        if wants_json(request):
            return JSONResponse({"problem": text}, status)
        return self.page("refusal", request, status=status, text=text, again=status == 503)


def base_of(request: Request) -> str:
    """The prefix under which the pages are mounted, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def wants_json(request: Request) -> bool:
    """Whether the page's script sent the form."""
    return request.headers.get("accept") == "application/json"


def subject_of(request: Request) -> Subject:
    """The proof or critique that the address names. Raises HTTPException."""
    proof = _id(request, "proof")
    answer = request.path_params.get("answer")
    subject = Subject.parse(f"{proof}/{answer}" if answer else proof)
    if subject is None:
        raise HTTPException(404, f"Proof {proof} has no critique {answer}.")
    return subject


def _id(request: Request, what: str) -> str:
    try:
        return check_id(request.path_params[what], what)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error


def _logged_in(request: Request) -> str:
    return str(getattr(request.state, "person", ""))


def _path(request: Request) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}"


def _local(to: str) -> str:
    """The address if it is on this site, else nothing."""
    return to if to.startswith("/") and not to.startswith(("//", "/\\")) else ""


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
