"""The pages: a list of runs, a list of cases, a case with its form. They work without JavaScript;
there is none.

A grade that is sent is written before anything is said about it; a second one for the same proof is
refused and shows the first.
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
from proofloop.report.formatting import count, score
from proofloop.report.page import environment, style
from proofloop.report.samples import printable
from proofloop.schema import keys
from proofloop.schema.ids import check_id
from proofloop.schema.records import Grade, Label
from proofloop.store import Store, get_record
from proofloop_labeler.review.cases import Cases, Kept, Standing
from proofloop_labeler.review.form import MAX_COMMENT, MAX_NAME, SCORES, Form
from proofloop_labeler.review.formulas import Setter
from proofloop_labeler.review.grading import grade_proof
from proofloop_labeler.review.guard import HERE, guarded

SHOWN = 100
"""Cases on one page of the list; who grades goes from one to the next anyway."""

EXCERPT = 240
"""Characters of a problem in the list."""

NAME_COOKIE, NAME_KEPT_S = "grader", 180 * 24 * 3600
"""Where the browser keeps the grader's name for the next proof."""


class Pages:
    """The pages over one store, or over its one run `only`. `announce` is told of a run with,
    maybe, a new grade.
    """

    def __init__(
        self, store: Store, cases: Cases, announce: Callable[[str], None], *, only: str | None
    ) -> None:
        self._store, self._cases, self._announce, self._only = store, cases, announce, only
        self._templates = environment("proofloop_labeler.review")
        self._templates.filters.update(score=score, count=count, printable=printable)

    def app(self, token: str | None) -> Starlette:
        """The application; without a token only a browser on this machine is answered."""
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
        runs = [(run, self._cases.standing(run)) for run in self._cases.runs()]
        return self._page("runs", request, runs=runs, store=str(self._store))

    def style(self, request: Request) -> Response:
        own = self._templates.get_template("review.css").render()
        return Response(f"{style()}\n{own}", media_type="text/css")

    def run(self, request: Request) -> Response:
        run = self._run(request)
        standing, set_formulas = self._cases.standing(run), Setter().readable
        return self._page(
            "run",
            request,
            run=run,
            standing=standing,
            lists=[
                (kind, found, found[:SHOWN])
                for kind, found in (("open", standing.open), ("check", standing.checks))
            ],
            excerpt=lambda problem: set_formulas(_excerpt(self._cases.question(run, problem))),
            checked=[grade for grade in standing.grades.values() if grade.checks_label],
            decided=[grade for grade in standing.grades.values() if not grade.checks_label],
            saved=_saved(request, standing),
            shown=SHOWN,
        )

    def next(self, request: Request) -> Response:
        """To the proof that follows `after`, or back to the list when there is none.

        Who begins, without `after`, goes to any: two people who begin together then read different
        proofs.
        """
        run = self._run(request)
        standing = self._cases.standing(run)
        after = request.query_params.get("after")
        follows = _any(standing.open or standing.checks) if after is None else standing.after(after)
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
        if label.outcome != "undecided" and not self._cases.standing(run).may_grade(proof):
            raise HTTPException(
                409,
                f"The label of proof {proof} is decided and is not to be checked. Nothing was"
                " saved.",
            )
        try:
            grade, is_heard = grade_proof(
                self._store, label, SCORES[form.score], by=form.by, comment=form.comment
            )
        except StoreError:  # the grade may be there all the same
            self._announce(run)
            raise
        if not is_heard:  # whoever was heard announces it
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
        """A case with its form, or with the grade that it has; `first` is the one that was quicker
        than this form.
        """
        standing = self._cases.standing(run)
        return self._page(
            "case",
            request,
            status=status,
            run=run,
            case=self._cases.read(run, proof),
            set=Setter().readable,
            standing=standing,
            grade=first or standing.grades.get(proof),
            is_late=first is not None,
            may_grade=standing.may_grade(proof),
            form=form,
            saved=_saved(request, standing),
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
            raise HTTPException(404, f"There is no run {run} here.")
        return run

    def _refuse(self, request: Request, error: Exception) -> Response:
        """What cannot be shown or saved, in words and with the way back."""
        if isinstance(error, HTTPException):
            return self._page(
                "refusal", request, status=error.status_code, text=error.detail, again=False
            )
        if isinstance(error, NotFound):
            return self._page(
                "refusal", request, status=404, text=f"The store has no {error}.", again=False
            )
        return self._page(
            "refusal", request, status=503, text=f"The store does not answer: {error}", again=True
        )


def _id(request: Request, what: str) -> str:
    try:
        return check_id(request.path_params[what], what)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error


def _any(waiting: Sequence[Kept]) -> str | None:
    return random.choice(waiting).proof_id if waiting else None


def _saved(request: Request, standing: Standing) -> Grade | None:
    """The grade that was saved just before."""
    return standing.grades.get(request.query_params.get("saved", ""))


def _excerpt(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]} …"
