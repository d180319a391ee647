"""Saves grades and withdrawals. Nothing stored is ever changed."""

from __future__ import annotations

import time

from proofloop.errors import NotFound
from proofloop.method.label_rule import decide_by_person
from proofloop.runs.grading.history import grades_of, standing
from proofloop.runs.grading.openings import is_blind, openings
from proofloop.schema import keys
from proofloop.schema.records import Critique, Grade, Judgement, Label, Score
from proofloop.store import Store, get_record, put_new, records_below
from proofloop_labeler.review.form import SCORES, Form
from proofloop_labeler.review.tasks import Subject


def save_grade(store: Store, run: str, subject: Subject, form: Form, *, by: str) -> Grade:
    """Save a checked form as the newest grade. The person's last form sent again is the same grade.

    Raises NotFound for a proof without a label, and for an unknown critique.
    """
    score = SCORES[form.score]
    seen = openings(store, run, subject.proof_id, by=by)
    label, checks = None, False
    if subject.critique is None:
        label = get_record(store, keys.label(run, subject.proof_id), Label)
        checks = label.outcome != "undecided"
        label = label if checks else _decide(store, label, score, by)
    else:
        get_record(store, keys.critique(run, subject.proof_id, subject.critique), Critique)
    return _append(
        store,
        Grade(
            run_id=run,
            proof_id=subject.proof_id,
            critique=subject.critique,
            number=0,
            score=score,
            by=by,
            at_s=time.time(),
            comment=form.comment,
            marks=form.marks,
            is_blind=is_blind(seen, subject.critique),
            settles=form.settles,
            form=form.id,
            checks_label=checks,
            label=label,
        ),
    )


def withdraw(store: Store, run: str, subject: Subject, *, by: str) -> Grade:
    """Withdraw the person's grade. Raises NotFound if there is none."""
    found = standing(grades_of(store, run, *subject)).get(by)
    if found is None:
        raise NotFound(f"grade of {subject} by {by}")
    fields = {"score": None, "at_s": time.time(), "settles": False, "form": "", "label": None}
    return _append(store, found.model_copy(update=fields))


def _decide(store: Store, label: Label, score: Score, by: str) -> Label:
    judgements = records_below(store, keys.judgements(label.run_id, label.proof_id), Judgement)
    return decide_by_person(label, judgements, score=score, by=by)


def _append(store: Store, grade: Grade) -> Grade:
    """Store the grade under the next free number. Another process may take it first."""
    while True:
        earlier = grades_of(store, grade.run_id, grade.proof_id, grade.critique)
        last = next((sent for sent in reversed(earlier) if sent.by == grade.by), None)
        if last and grade.form and _sent(last) == _sent(grade):
            return last
        numbered = grade.model_copy(update={"number": len(earlier)})
        key = keys.grade(grade.run_id, grade.proof_id, numbered.number, grade.critique)
        if put_new(store, key, numbered, durable=True):
            return numbered


def _sent(grade: Grade) -> tuple[object, ...]:
    """The fields that the person sent."""
    return grade.form, grade.by, grade.score, grade.comment, grade.marks, grade.settles
