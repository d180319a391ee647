"""Which label of a proof counts: the labeler's, or a person's where the labeler could not decide.

Whoever wants to know a label asks here. The labeler's own record stays as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop import keys
from proofloop.records import Grade, Label
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
    """This label, or the one of a person who decided since. A decided label is never looked up again."""
    if label.outcome != "undecided":
        return label
    grade = find_record(store, keys.grade(label.run_id, label.proof_id), Grade)
    return grade.label if grade else label
