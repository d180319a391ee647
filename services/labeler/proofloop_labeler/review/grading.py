"""The page on which a person grades a proof or a critique, and its forms.

It is blind at first: it shows the proof alone. What models and other people think of it appears
after the person's first grade, or on request, and the store records that it was seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from proofloop.errors import StoreError
from proofloop.runs.grading.history import counting, is_contested, standing
from proofloop.runs.grading.openings import CRITIQUE, record_opening, what_others_think
from proofloop_labeler.review.cases import RunTasks
from proofloop_labeler.review.form import MAX_COMMENT, MAX_MARK, Form
from proofloop_labeler.review.lists import saved_grade
from proofloop_labeler.review.saving import save_grade, withdraw
from proofloop_labeler.review.site import Site, base_of, subject_of, wants_json
from proofloop_labeler.review.tasks import Subject

PROOF_SCALE = (
    ("1", "complete and rigorous"),
    ("0.5", "sound, with a minor error or omission"),
    ("0", "fatal error or gap"),
)
ANALYSIS_SCALE = (
    ("1", "every defect it reports is real, or it reports none"),
    ("0.5", "some are real, or its score does not follow"),
    ("0", "no defect it reports is real"),
)


class Grading:
    """The endpoints of this page."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def show(self, request: Request) -> Response:
        """The page. `read=1`: the person comes from the page that shows what others think, perhaps
        without a name until now.
        """
        subject = subject_of(request)
        if "read" in request.query_params:
            self._record_reveal(request, subject)
        return self._show(request, subject)

    async def save(self, request: Request) -> Response:
        form = Form.read(await request.body())
        return await run_in_threadpool(self._save, request, form)

    def undo(self, request: Request) -> Response:
        """Withdraw the person's grade, and show its page again."""
        run, me, subject = self._site.run(request), self._site.person(request), subject_of(request)
        with self._announcing(run):
            withdraw(self._site.store, run, subject, by=me)
        return RedirectResponse(f"{_address(request, run, subject)}?undone=1", status_code=303)

    def reveal(self, request: Request) -> Response:
        """Show the critiques before the first grade, and record it."""
        subject = subject_of(request)
        run = self._record_reveal(request, subject)
        return RedirectResponse(_address(request, run, subject), status_code=303)

    def _record_reveal(self, request: Request, subject: Subject) -> str:
        """Record that the person sees what others think. Returns the run."""
        run, me = self._site.run(request), self._site.person(request)
        what = what_others_think(subject.critique)
        record_opening(self._site.store, run, subject.proof_id, what, by=me)
        return run

    def _save(self, request: Request, form: Form) -> Response:
        run, me, subject = self._site.run(request), self._site.person(request), subject_of(request)
        if form.problem:
            return self._not_saved(request, subject, form)
        if not self._site.cases.tasks(run).may_grade(subject):
            raise HTTPException(
                409,
                f"Proof {subject} has a label and is not in the sample to check. The grade was not"
                " saved.",
            )
        with self._announcing(run):
            save_grade(self._site.store, run, subject, form, by=me)
        follows = f"{base_of(request)}/runs/{run}/next?after={subject}&saved={subject}"
        if wants_json(request):
            return JSONResponse({"next": follows})
        return RedirectResponse(follows, status_code=303)

    @contextmanager
    def _announcing(self, run: str) -> Iterator[None]:
        """Announce the run's grades after the block; also after a store error, because the grade
        may be stored although the reply was lost.
        """
        try:
            yield
        except StoreError:
            self._site.announce(run)
            raise
        self._site.announce(run)

    def _not_saved(self, request: Request, subject: Subject, form: Form) -> Response:
        if wants_json(request):
            return JSONResponse({"problem": form.problem}, 400)
        return self._show(request, subject, form, status=400)

    def _show(
        self, request: Request, subject: Subject, form: Form | None = None, *, status: int = 200
    ) -> Response:
        site = self._site
        run, me = site.run(request), site.person(request)
        tasks = site.cases.tasks(run)
        history = tasks.history(subject)
        mine = standing(history).get(me)
        case = site.cases.read(run, subject.proof_id)
        if subject.critique is not None:
            record_opening(site.store, run, subject.proof_id, CRITIQUE, by=me)
        is_open = site.reveals(run, subject, to=me, is_graded=bool(mine))
        last = [grade for grade in history if grade.by == me and grade.score is not None]
        return site.page(
            "task",
            request,
            status=status,
            run=run,
            subject=subject,
            case=case,
            critique=None if subject.critique is None else site.cases.critique(run, subject),
            is_open=is_open,
            others=self._others(run, subject) if is_open else [],
            history=history if is_open else [grade for grade in history if grade.by == me],
            counts=counting(history),
            is_contested=is_contested(history),
            trained=site.cases.trained(run, subject.proof_id) if is_open else [],
            mine=mine,
            may_grade=tasks.may_grade(subject),
            form=form or (Form.again(last[-1]) if last else Form()),
            is_undone="undone" in request.query_params,
            scale=PROOF_SCALE if subject.critique is None else ANALYSIS_SCALE,
            left=len(tasks.queue(me).waiting),
            overlap=tasks.offer.overlap,
            saved=saved_grade(request, tasks, me),
            max_comment=MAX_COMMENT,
            max_mark=MAX_MARK,
            label=self._label(tasks, subject) if is_open else None,
        )

    def _others(self, run: str, subject: Subject) -> list[Any]:
        """The critiques with their judgements; of a critique, itself with its judgements."""
        cases = self._site.cases
        if subject.critique is None:
            return cases.critiques(run, subject.proof_id)
        return [cases.with_judgement(run, cases.critique(run, subject))]

    def _label(self, tasks: RunTasks, subject: Subject) -> str | None:
        found = tasks.labels.get(subject.proof_id)
        return found.outcome if found and subject.critique is None else None


def _address(request: Request, run: str, subject: Subject) -> str:
    return f"{base_of(request)}/runs/{run}/proofs/{subject}"
