"""The grades of a proof or analysis in order, and the one that counts.

Each person's last grade replaces the earlier ones. If people agree, the last grade counts. If they
disagree, none counts until a person settles the case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from proofloop.schema import keys
from proofloop.schema.records import Grade, Label
from proofloop.store import Store, records_below


def grades_of(
    store: Store, run_id: str, proof_id: str, critique: int | None = None
) -> tuple[Grade, ...]:
    """All grades of a proof, or of one of its critiques, in order."""
    prefix = keys.grades(run_id, proof_id, critique)
    return tuple(records_below(store, prefix, Grade))


def all_grades(store: Store, run_id: str) -> Iterator[Grade]:
    """All grades of a run, by proof and analysis, one at a time."""
    return records_below(store, keys.all_grades(run_id), Grade)


def grades_that_count(store: Store, run_id: str) -> dict[tuple[str, int | None], Grade]:
    """The grade that counts of each graded proof (None) and critique (its index)."""
    found: dict[tuple[str, int | None], Grade] = {}
    answers = groupby(all_grades(store, run_id), key=lambda grade: (grade.proof_id, grade.critique))
    for answer, grades in answers:
        if grade := counting(grades):
            found[answer] = grade
    return found


def standing(grades: Iterable[Grade]) -> dict[str, Grade]:
    """Each person's last grade, in the order given. A withdrawn grade does not stand."""
    last: dict[str, Grade] = {}
    for grade in grades:
        last.pop(grade.by, None)
        last[grade.by] = grade
    return {by: grade for by, grade in last.items() if grade.score is not None}


def counting(grades: Iterable[Grade]) -> Grade | None:
    """The grade that counts: the last one that settles the case, or else the last one if all people
    agree.
    """
    found = list(standing(grades).values())
    settled = [grade for grade in found if grade.settles]
    if settled:
        return settled[-1]
    agree = len({grade.score for grade in found}) == 1
    return found[-1] if agree else None


def is_contested(grades: Iterable[Grade]) -> bool:
    """Whether people disagree and the case is not settled."""
    found = standing(grades).values()
    return len({grade.score for grade in found}) > 1 and not any(grade.settles for grade in found)


def find_grade(store: Store, run_id: str, proof_id: str) -> Grade | None:
    """The grade of a proof that counts."""
    return counting(grades_of(store, run_id, proof_id))


def label_after(label: Label, grades: Sequence[Grade]) -> Label:
    """The label of an undecided proof with these grades."""
    if not grades:
        return label
    graded = counting(grades)
    found = graded.label if graded and graded.label else label
    return found.model_copy(update={"grade": grades[-1].number})
