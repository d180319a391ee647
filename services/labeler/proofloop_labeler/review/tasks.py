"""The tasks of people who grade, and their order for each person.

A task needs `overlap` people. If the people are known, each task is assigned to that many of them
and comes first in their queues; others may still take it. Tasks about one problem stay together,
and each person begins with another problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from proofloop.runs.grading.history import standing
from proofloop.schema.ids import PROOF, critique_name, parse_answer_name
from proofloop.schema.records import Grade, derive_seed

Kind = Literal["proof", "check", "analysis"]
KINDS: tuple[Kind, ...] = ("proof", "check", "analysis")
"""Undecided proofs, labels to check, analyses: in this order."""


class Subject(NamedTuple):
    """The subject of a grade: a proof, or one of its critiques."""

    proof_id: str
    critique: int | None = None

    @property
    def answer(self) -> str:
        return str(PROOF if self.critique is None else critique_name(self.critique))

    def __str__(self) -> str:
        """As `proofloop proof` takes it."""
        return self.proof_id if self.critique is None else f"{self.proof_id}/{self.answer}"

    @classmethod
    def parse(cls, text: str) -> Subject | None:
        proof_id, separator, answer = text.partition("/")
        if not separator:
            return cls(proof_id)
        name = parse_answer_name(answer)
        return cls(proof_id, name.index) if name and name.kind == "critique" else None


@dataclass(frozen=True)
class Task:
    """A proof or critique to grade."""

    subject: Subject
    problem_id: str
    kind: Kind


Histories = Mapping[Subject, Sequence[Grade]]


@dataclass(frozen=True)
class Queue:
    """The tasks of one person, in order."""

    tasks: Sequence[Task]
    histories: Histories
    person: str
    overlap: int

    @classmethod
    def of(
        cls,
        tasks: Iterable[Task],
        histories: Histories,
        *,
        person: str,
        overlap: int,
        people: Sequence[str] = (),
    ) -> Queue:
        def place(task: Task) -> tuple[int, bool, int, str, Subject]:
            others = bool(people) and person not in assigned(task.subject, overlap, people)
            lot = derive_lot(person, task.problem_id)
            return KINDS.index(task.kind), others, lot, task.problem_id, task.subject

        return cls(sorted(tasks, key=place), histories, person, overlap)

    def waits(self, task: Task) -> bool:
        """Whether the task needs a grade of this person."""
        graders = standing(self.histories.get(task.subject, ()))
        return self.person not in graders and len(graders) < self.overlap

    @property
    def waiting(self) -> list[Task]:
        return [task for task in self.tasks if self.waits(task)]

    def after(self, subject: Subject | None) -> Task | None:
        """The next task after this one; after the last one, the first that waits."""
        subjects = [task.subject for task in self.tasks]
        place = subjects.index(subject) + 1 if subject in subjects else 0
        later = [*self.tasks[place:], *self.tasks[:place]]
        return next((task for task in later if task.subject != subject and self.waits(task)), None)


def assigned(subject: Subject, overlap: int, people: Sequence[str]) -> list[str]:
    """The people to whom a task is assigned, the same in every process."""
    return sorted(people, key=lambda name: derive_lot(name, str(subject)))[:overlap]


@lru_cache(maxsize=100_000)
def derive_lot(person: str, what: str) -> int:
    return derive_seed("grading", person, what)
