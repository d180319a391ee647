"""The pages: a list of runs, a list of a run's proofs, a proof with its form. They have no
JavaScript.

The response to a form comes after the grade is stored. A second grade for the same proof is
refused, and the page shows the first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from proofloop.errors import ConfigError, NotFound, StoreError
from proofloop.report.numbers import count, score
from proofloop.report.page import environment, style
from proofloop.schema import keys
from proofloop.schema.ids import check_id
from proofloop.schema.records import Grade, Label
from proofloop.store import Store, get_record
from proofloop.typeset.printable import printable
from proofloop_labeler.review.cases import Cases, LabelSummary, ReviewProgress
from proofloop_labeler.review.form import MAX_COMMENT, MAX_NAME, SCORES, Form
from proofloop_labeler.review.formulas import Typesetter
from proofloop_labeler.review.grading import grade_proof
from proofloop_labeler.review.guard import HERE, guarded

SHOWN = 100
"""The most proofs in a list on a page. Graders go from proof to proof by the Next button."""

EXCERPT = 240
"""Characters of a problem in the list."""

NAME_KEPT_S = 180 * 24 * 3600
NAME_COOKIE = "grader"
"""The browser's cookie with the grader's name, which fills the next form."""


class Pages:
    """The pages of one store, or of its one run `only`. `announce` is called with a run that may
    have a new grade.
    """

    def __init__(
        self, store: Store, cases: Cases, announce: Callable[[str], None], *, only: str | None
    ) -> None:
        self._store = store
        self._cases = cases
        self._announce = announce
        self._only = only
        self._templates = environment("proofloop_labeler.review")
        self._templates.filters.update(score=score, count=count, printable=printable)

    def app(self, token: str | None) -> Starlette:
        """The application. Without a token, it answers only browsers on this machine."""
        hosts = ["*"] if token is not None else list(HERE)
        case = "/runs/{run}/proofs/{proof}"
        return Starlette(
            routes=[
                Route("/", self.runs),
                Route("/style.css", self.style),
                Route("/runs/{run}", self.run),
                Route("/runs/{run}/next", self.next),
                Route(case, self.case, methods=["GET"]),
                Route(case, self.grade, methods=["POST"]),
            ],
            middleware=[
                Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
                Middleware(BaseHTTPMiddleware, dispatch=guarded(token)),
            ],
            exception_handlers={
                HTTPException: self._refuse,
                NotFound: self._refuse,
                StoreError: self._refuse,
            },
        )

    def runs(self, request: Request) -> Response:
        if self._only is not None:
            return RedirectResponse(f"/runs/{self._only}")
        runs = [(run, self._cases.progress(run)) for run in self._cases.runs()]
        return self._page("runs", request, runs=runs, store=str(self._store))

    def style(self, request: Request) -> Response:
        own = self._templates.get_template("review.css").render()
        return Response(f"{style()}\n{own}", media_type="text/css")

    def run(self, request: Request) -> Response:
        run = self._run(request)
        progress = self._cases.progress(run)
        set_formulas = Typesetter().readable
        return self._page(
            "run",
            request,
            run=run,
            progress=progress,
            lists=[
                ("open", progress.open, progress.open[:SHOWN]),
                ("check", progress.checks, progress.checks[:SHOWN]),
            ],
            excerpt=lambda problem: set_formulas(_excerpt(self._cases.question(run, problem))),
            checked=[grade for grade in progress.grades.values() if grade.checks_label],
            decided=[grade for grade in progress.grades.values() if not grade.checks_label],
            saved=_saved(request, progress),
            shown=SHOWN,
        )

    def next(self, request: Request) -> Response:
        """Redirect to the proof that follows `after`, or to the list if there is none.

        Without `after`, the proof is random: two people who start together read different proofs.
        """
        run = self._run(request)
        progress = self._cases.progress(run)
        after = request.query_params.get("after")
        follows = _any(progress.open or progress.checks) if after is None else progress.after(after)
        where = f"/runs/{run}/proofs/{follows}" if follows else f"/runs/{run}"
        saved = request.query_params.get("saved")
        return RedirectResponse(
            f"{where}?saved={quote(saved)}" if saved else where, status_code=303
        )

    def case(self, request: Request) -> Response:
        run, proof = self._run(request), _id(request, "proof")
        name = request.state.name or unquote(request.cookies.get(NAME_COOKIE, ""))[:MAX_NAME]
        return self._case(request, run, proof, Form(by=name))

    async def grade(self, request: Request) -> Response:
        form = Form.read(await request.body())
        return await run_in_threadpool(self._grade, request, form)

    def _grade(self, request: Request, form: Form) -> Response:
        run, proof = self._run(request), _id(request, "proof")
        if form.problem:
            return self._case(request, run, proof, form, status=400)
        label = get_record(self._store, keys.label(run, proof), Label)
        if label.outcome != "undecided" and not self._cases.progress(run).may_grade(proof):
            raise HTTPException(
                409,
                f"Proof {proof} has a label and is not in the sample to check. The grade was not"
                " saved.",
            )
        try:
            grade, is_first = grade_proof(
                self._store, label, SCORES[form.score], by=form.by, comment=form.comment
            )
        except StoreError:  # the grade may be stored although the reply was lost
            self._announce(run)
            raise
        if not is_first:  # the first grade's request announces it
            return self._case(request, run, proof, form, first=grade, status=409)
        self._announce(run)
        response = RedirectResponse(
            f"/runs/{run}/next?after={proof}&saved={proof}", status_code=303
        )
        response.set_cookie(
            NAME_COOKIE,
            quote(form.by),
            max_age=NAME_KEPT_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def _case(
        self,
        request: Request,
        run: str,
        proof: str,
        form: Form,
        *,
        first: Grade | None = None,
        status: int = 200,
    ) -> Response:
        """A proof with its form or its grade. `first` is another person's grade that was stored
        before this form.
        """
        progress = self._cases.progress(run)
        return self._page(
            "case",
            request,
            status=status,
            run=run,
            case=self._cases.read(run, proof),
            set=Typesetter().readable,
            progress=progress,
            grade=first or progress.grades.get(proof),
            is_late=first is not None,
            may_grade=progress.may_grade(proof),
            form=form,
            saved=_saved(request, progress),
            max_name=MAX_NAME,
            max_comment=MAX_COMMENT,
        )

    def _page(
        self, template: str, request: Request, *, status: int = 200, **names: Any
    ) -> Response:
        page = self._templates.get_template(f"{template}.html.jinja").render(
            **names, only=self._only
        )
        return HTMLResponse(page.encode("utf-8", "replace"), status)

    def _run(self, request: Request) -> str:
        run = _id(request, "run")
        if self._only not in (None, run) or not self._cases.has_run(run):
            raise HTTPException(404, f"No run named {run} in this store.")
        return run

    def _refuse(self, request: Request, error: Exception) -> Response:
        """The page for an error, with a link back."""
        if isinstance(error, HTTPException):
            return self._page(
                "refusal", request, status=error.status_code, text=error.detail, again=False
            )
        if isinstance(error, NotFound):
            return self._page(
                "refusal", request, status=404, text=f"The store has no {error}.", again=False
            )
        return self._page(
            "refusal", request, status=503, text=f"The store is unavailable: {error}", again=True
        )


def _id(request: Request, what: str) -> str:
    try:
        return check_id(request.path_params[what], what)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error


def _any(waiting: Sequence[LabelSummary]) -> str | None:
    return random.choice(waiting).proof_id if waiting else None


def _saved(request: Request, progress: ReviewProgress) -> Grade | None:
    """The grade that the previous page saved."""
    return progress.grades.get(request.query_params.get("saved", ""))


def _excerpt(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]} …"
