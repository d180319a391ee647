"""The pages that lead to a proof: the runs, a run with its tasks, and the proofs on which people
disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from proofloop.errors import CorruptObject
from proofloop.runs.grading.agreement import Agreement, agreements
from proofloop.runs.grading.history import is_contested, standing
from proofloop.schema.records import Grade
from proofloop_labeler.review.cases import RunTasks
from proofloop_labeler.review.site import Site, base_of
from proofloop_labeler.review.tasks import Subject

SHOWN = 100
"""The most rows in a list on a page. Graders go from proof to proof by the Next button."""

EXCERPT = 240
"""Characters of a problem in the list."""


@dataclass(frozen=True)
class Disagreement:
    """A proof or critique with the grades of people who disagree; without them for a person who has
    not graded it.
    """

    subject: Subject
    grades: Sequence[Grade]
    is_open: bool


class Lists:
    """The endpoints of these pages."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def runs(self, request: Request) -> Response:
        site = self._site
        if site.only is not None:
            return RedirectResponse(f"{base_of(request)}/runs/{site.only}")
        me = site.person(request)
        rows: dict[str, _Counts] = {}
        unreadable: dict[str, str] = {}
        for run in site.cases.runs():
            try:
                rows[run] = _Counts.of(site.cases.tasks(run), me)
            except CorruptObject as error:
                unreadable[run] = str(error)
        return site.page("runs", request, rows=rows, unreadable=unreadable, store=str(site.store))

    def run(self, request: Request) -> Response:
        site = self._site
        run, me = site.run(request), site.person(request)
        tasks = site.cases.tasks(run)
        waiting = tasks.queue(me).waiting
        mine = [standing(history)[me] for history in tasks.histories.values() if _by(me, history)]
        return site.page(
            "run",
            request,
            run=run,
            counts=_Counts.of(tasks, me),
            waiting=waiting[:SHOWN],
            mine=sorted(mine, key=lambda grade: -grade.at_s)[:SHOWN],
            people=_people(tasks),
            agreements=_agreements(tasks),
            overlap=tasks.offer.overlap,
            excerpt=self._excerpts(run),
            saved=saved_grade(request, tasks, me),
            shown=SHOWN,
        )

    def disagreements(self, request: Request) -> Response:
        site = self._site
        run, me = site.run(request), site.person(request)
        histories = site.cases.tasks(run).histories
        contested = [each for each in histories.items() if is_contested(each[1])]
        found = []
        for subject, history in contested[:SHOWN]:
            is_open = site.reveals(run, subject, to=me, is_graded=_by(me, history))
            grades = list(standing(history).values()) if is_open else []
            found.append(Disagreement(subject, grades, is_open))
        return site.page("disagreements", request, run=run, found=found, total=len(contested))

    def next(self, request: Request) -> Response:
        """Redirect to the task behind `after`, or to the run's page if none is left."""
        site = self._site
        run, me = site.run(request), site.person(request)
        after = Subject.parse(request.query_params.get("after", ""))
        task = site.cases.tasks(run).queue(me).after(after)
        where = f"{base_of(request)}/runs/{run}{f'/proofs/{task.subject}' if task else ''}"
        saved = Subject.parse(request.query_params.get("saved", ""))
        query = f"?saved={saved}" if saved and saved.proof_id else ""
        return RedirectResponse(f"{where}{query}", status_code=303)

    def _excerpts(self, run: str) -> Any:
        def excerpt(problem_id: str) -> str:
            line = " ".join(self._site.cases.question(run, problem_id).split())
            return line if len(line) <= EXCERPT else f"{line[:EXCERPT]} …"

        return excerpt


@dataclass(frozen=True)
class _Counts:
    """The numbers of a run for one person."""

    waiting: int
    mine: int
    graded: int
    contested: int
    kinds: dict[str, int]

    @classmethod
    def of(cls, tasks: RunTasks, me: str) -> _Counts:
        waiting = tasks.queue(me).waiting
        histories = tasks.histories.values()
        return cls(
            waiting=len(waiting),
            mine=sum(_by(me, history) for history in histories),
            graded=sum(bool(standing(history)) for history in histories),
            contested=sum(is_contested(history) for history in histories),
            kinds={
                kind: sum(task.kind == kind for task in waiting)
                for kind in ("proof", "check", "analysis")
            },
        )


def saved_grade(request: Request, tasks: RunTasks, me: str) -> Grade | None:
    """The person's grade that the previous page saved."""
    subject = Subject.parse(request.query_params.get("saved", ""))
    return standing(tasks.history(subject)).get(me) if subject else None


def _by(person: str, history: Sequence[Grade]) -> bool:
    return person in standing(history)


def _people(tasks: RunTasks) -> list[tuple[str, int]]:
    """Each person with the number of proofs and analyses that they graded."""
    counts: dict[str, int] = dict.fromkeys(tasks.offer.people, 0)
    for history in tasks.histories.values():
        for person in standing(history):
            counts[person] = counts.get(person, 0) + 1
    return sorted(counts.items())


def _agreements(tasks: RunTasks) -> list[tuple[str, list[Agreement]]]:
    """The agreement on proofs, and on analyses."""
    groups = (
        ("proofs", [grade for grade in tasks.grades if grade.critique is None]),
        ("analyses", [grade for grade in tasks.grades if grade.critique is not None]),
    )
    return [(what, found) for what, grades in groups if (found := agreements(grades))]
