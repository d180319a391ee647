"""Which label of a proof counts: the labeler's, or a person's where the labeler could not decide.

Whoever wants to know a label asks here. The labeler's own record stays as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proofloop.schema import keys
from proofloop.schema.records import Critique, Grade, Label, Problem, Proof
from proofloop.store import Store, find_record, get_record


def find_label(store: Store, run_id: str, proof_id: str) -> Label | None:
    """The label of a proof that counts now, or None while it has none."""
    label = find_record(store, keys.label(run_id, proof_id), Label)
    return label and in_force(store, label)


def labels_of(store: Store, run_id: str) -> Iterator[Label]:
    """The labels of a run that count now, one at a time."""
    for key in store.list(keys.labels(run_id)):
        yield in_force(store, get_record(store, key, Label))


def in_force(store: Store, label: Label) -> Label:
    """This label, or the one of a person who decided since. A decided label is never looked up
    again.
    """
    if label.outcome != "undecided":
        return label
    grade = find_record(store, keys.grade(label.run_id, label.proof_id), Grade)
    return grade.label if grade else label


def proof_rows(store: Store, run_id: str, *, people: bool) -> Iterator[dict[str, Any]]:
    """The scored proofs as rows for a curriculum's [files] proofs; those that people scored, or
    all.

    A person's score goes first, also where it only checks a label.
    """
    for label in labels_of(store, run_id):
        grade = find_record(store, keys.grade(run_id, label.proof_id), Grade)
        score, by = (grade.score, grade.by) if grade else (label.score, label.by)
        if score is not None and (grade or not people):
            yield {**_about(store, run_id, label.proof_id), "score": score, "by": by}


def analysis_rows(store: Store, run_id: str) -> Iterator[dict[str, Any]]:
    """The critiques that report an issue, as rows for [files] analyses whose quality people are to
    fill in.
    """
    for label in labels_of(store, run_id):
        for key in store.list(keys.critiques(run_id, label.proof_id)):
            critique = get_record(store, key, Critique)
            if critique.index >= 0 and critique.verdict.score in (0.0, 0.5):
                about = _about(store, run_id, label.proof_id)
                yield {**about, "analysis": critique.analysis, "quality": None}


def _about(store: Store, run_id: str, proof_id: str) -> dict[str, Any]:
    proof = get_record(store, keys.proof(run_id, proof_id), Proof)
    question = get_record(store, keys.problem(run_id, proof.problem_id), Problem).question
    return {"question": question, "solution": proof.solution}
