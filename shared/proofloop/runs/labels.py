"""The label of a proof: the labeler's; if the labeler could not decide, people's.

Read labels here. The labeler's own record stays as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proofloop.config.given_files import EXPERT
from proofloop.runs.answers import critiques_of, question_of
from proofloop.runs.grading.history import grades_of, grades_that_count, label_after
from proofloop.schema import keys
from proofloop.schema.records import Grade, Label, Proof, Score
from proofloop.store import Store, find_record, get_record, records_below


def find_label(store: Store, run_id: str, proof_id: str) -> Label | None:
    """The label of a proof that counts now; None without one."""
    label = find_record(store, keys.label(run_id, proof_id), Label)
    return label and in_force(store, label)


def labels_of(store: Store, run_id: str) -> Iterator[Label]:
    """The labels of a run that count now, one at a time."""
    return (in_force(store, label) for label in records_below(store, keys.labels(run_id), Label))


def in_force(store: Store, label: Label) -> Label:
    """This label, or that of people who graded the proof since. A decided label is not looked up
    again.
    """
    if label.outcome != "undecided":
        return label
    return label_after(label, grades_of(store, label.run_id, label.proof_id))


def scored_proofs(store: Store, run_id: str) -> Iterator[dict[str, Any]]:
    """The scored proofs as rows for a curriculum's [files] proofs. A person's score replaces the
    label's, even if it only checks the label.
    """
    grades = grades_that_count(store, run_id)
    for label in labels_of(store, run_id):
        graded = grades.get((label.proof_id, None))
        score, by = (graded.score, graded.by) if graded else (label.score, label.by)
        if score is not None:
            yield {**_about(store, run_id, label.proof_id), "score": score, "by": by}


def analysis_rows(store: Store, run_id: str, *, people: bool) -> Iterator[dict[str, Any]]:
    """The critiques that report an issue, as rows for [files] analyses, with people's quality or
    None. With `people`, all graded ones and no others.
    """
    grades = grades_that_count(store, run_id)
    for label in labels_of(store, run_id):
        for critique in critiques_of(store, run_id, label.proof_id):
            graded = grades.get((label.proof_id, critique.index))
            reports_issue = critique.index >= 0 and critique.verdict.score in (0.0, 0.5)
            if graded or (reports_issue and not people):
                about = _about(store, run_id, label.proof_id)
                yield {**about, "analysis": critique.analysis, **_quality(graded)}


def _quality(graded: Grade | None) -> dict[str, Score | str | None]:
    if graded is None:
        return {"quality": None, "by": EXPERT}
    return {"quality": graded.score, "by": graded.by}


def _about(store: Store, run_id: str, proof_id: str) -> dict[str, Any]:
    proof = get_record(store, keys.proof(run_id, proof_id), Proof)
    question = question_of(store, run_id, proof.problem_id)
    return {"question": question, "solution": proof.solution}
