"""The cases of a run to grade, and the records that people read for a grade.

Labels and grades never change, so a process reads each of them once.
"""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from proofloop.runs.answers import critiques_of, find_judgement, meta_critiques_of
from proofloop.schema import keys
from proofloop.schema.ids import is_single_call
from proofloop.schema.records import (
    Critique,
    Grade,
    Label,
    LabelOutcome,
    MetaCritique,
    Problem,
    Proof,
    TrainingStep,
    derive_seed,
)
from proofloop.store import R, Store, find_record, get_record
from proofloop_labeler.review.read_once import ReadOnce
from proofloop_labeler.review.tasks import Histories, Queue, Subject, Task

LISTED_S = 5.0
"""The longest time to reuse a list of labels: listing those of a large run takes seconds."""

READ_FOR_EACH = 5
"""Proofs to look at for each analysis of the sample: not every proof has a critique with an
issue.
"""


@dataclass(frozen=True)
class Offer:
    """The samples to grade beside the undecided proofs: labels to check, and analyses of each run;
    each by `overlap` of the `people`, who may be unknown.
    """

    spot_checks: int = 0
    analyses: int = 0
    overlap: int = 1
    people: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSummary:
    """The part of a label that stays in memory. Lots are random numbers: the labels with the lowest
    ones are the sample, the same in every process.
    """

    proof_id: str
    problem_id: str
    outcome: LabelOutcome
    lot: int
    analysis_lot: int

    @classmethod
    def of(cls, label: Label) -> LabelSummary:
        lots = (derive_seed(what, label.run_id, label.proof_id) for what in ("check", "analysis"))
        return cls(label.proof_id, label.problem_id, label.outcome, *lots)


@dataclass(frozen=True)
class RunTasks:
    """The tasks of a run, and all grades by proof and critique."""

    tasks: tuple[Task, ...]
    histories: Histories
    labels: dict[str, LabelSummary]
    offer: Offer

    def queue(self, person: str) -> Queue:
        return Queue.of(
            self.tasks,
            self.histories,
            person=person,
            overlap=self.offer.overlap,
            people=self.offer.people,
        )

    def history(self, subject: Subject) -> Sequence[Grade]:
        return self.histories.get(subject, ())

    @property
    def grades(self) -> list[Grade]:
        return [grade for history in self.histories.values() for grade in history]

    def may_grade(self, subject: Subject) -> bool:
        """Whether people may grade it: a critique, an undecided proof, or a decided proof that is
        in the sample or has a grade.
        """
        found = self.labels.get(subject.proof_id)
        if subject.critique is not None or (found and found.outcome == "undecided"):
            return True
        return subject in self.histories or any(task.subject == subject for task in self.tasks)


@dataclass(frozen=True)
class ReadCritique:
    """A critique with its meta-critiques."""

    critique: Critique
    confirmed: bool | None
    assessments: tuple[MetaCritique, ...]


@dataclass(frozen=True)
class Case:
    """A proof with its problem."""

    proof: Proof
    question: str


class Cases:
    """The cases of a store."""

    def __init__(self, store: Store, offer: Offer) -> None:
        self._store = store
        self._offer = offer
        self._lock = threading.Lock()
        self._labels: dict[str, ReadOnce[Label, LabelSummary]] = {}
        self._grades: dict[str, ReadOnce[Grade, Grade]] = {}
        self._steps: dict[str, ReadOnce[TrainingStep, TrainingStep]] = {}
        self._analyses: dict[tuple[str, str], int | None] = {}
        self._is_knock_out: dict[str, bool] = {}

    def runs(self) -> Iterator[str]:
        """The names of the runs, without those of single `prove` and `judge` calls."""
        names = (keys.name_of(key) for key in self._store.list(keys.SPECS))
        return (name for name in names if not is_single_call(name))

    def has_run(self, run: str) -> bool:
        return self._store.exists(keys.run_spec(run))

    def tasks(self, run: str) -> RunTasks:
        with self._lock:
            labels = self._labels.setdefault(
                run, ReadOnce(self._store, keys.labels(run), Label, LabelSummary.of)
            )
            grades = self._grades.setdefault(
                run, ReadOnce(self._store, keys.all_grades(run), Grade, _itself)
            )
        found = labels.all(age_s=LISTED_S)
        if self._compares(run, found):
            found = {}
        histories: dict[Subject, list[Grade]] = defaultdict(list)
        for grade in grades.all().values():
            histories[Subject(grade.proof_id, grade.critique)].append(grade)
        tasks = [*self._proofs(found.values()), *self._sample_analyses(run, found.values())]
        return RunTasks(tuple(tasks), dict(histories), found, self._offer)

    def _compares(self, run: str, labels: Mapping[str, LabelSummary]) -> bool:
        """Whether the run is a knock-out: its scores tell which of two proofs is better, not how
        good one is.
        """
        if run not in self._is_knock_out and labels:
            key = keys.problem(run, next(iter(labels.values())).problem_id)
            self._is_knock_out[run] = get_record(self._store, key, Problem).rival is not None
        return self._is_knock_out.get(run, False)

    def _proofs(self, labels: Iterable[LabelSummary]) -> Iterator[Task]:
        decided = []
        for label in labels:
            if label.outcome == "undecided":
                yield Task(Subject(label.proof_id), label.problem_id, "proof")
            elif label.outcome in ("accepted", "rejected"):
                decided.append(label)
        drawn = heapq.nsmallest(self._offer.spot_checks, decided, key=lambda label: label.lot)
        for label in sorted(drawn, key=lambda label: label.proof_id):
            yield Task(Subject(label.proof_id), label.problem_id, "check")

    def _sample_analyses(self, run: str, labels: Iterable[LabelSummary]) -> Iterator[Task]:
        """Analyses that report an issue, at most one a proof."""
        wanted = self._offer.analyses
        readable = (label for label in labels if label.outcome != "unreadable")
        drawn = heapq.nsmallest(
            wanted * READ_FOR_EACH, readable, key=lambda label: label.analysis_lot
        )
        found = ((label, self._analysis(run, label)) for label in drawn)
        chosen = ((label, index) for label, index in found if index is not None)
        for label, index in islice(chosen, wanted):
            yield Task(Subject(label.proof_id, index), label.problem_id, "analysis")

    def _analysis(self, run: str, label: LabelSummary) -> int | None:
        """A critique of the proof that reports an issue, drawn by its lot."""
        where = run, label.proof_id
        if where not in self._analyses:
            indices = [
                critique.index
                for critique in critiques_of(self._store, *where)
                if critique.index >= 0 and critique.verdict.score in (0.0, 0.5)
            ]
            drawn = indices[label.analysis_lot % len(indices)] if indices else None
            self._analyses[where] = drawn
        return self._analyses[where]

    def question(self, run: str, problem_id: str) -> str:
        problem = find_record(self._store, keys.problem(run, problem_id), Problem)
        return problem.question if problem else ""

    def read(self, run: str, proof_id: str) -> Case:
        """The proof with its problem. Raises NotFound."""
        proof = get_record(self._store, keys.proof(run, proof_id), Proof)
        return Case(proof, self.question(run, proof.problem_id))

    def critiques(self, run: str, proof_id: str) -> list[ReadCritique]:
        """The critiques: first the confirmed ones, then by rising score."""
        found = [
            self.with_judgement(run, critique)
            for critique in critiques_of(self._store, run, proof_id)
        ]
        return sorted(found, key=_urgency)

    def critique(self, run: str, subject: Subject) -> Critique:
        """The critique to grade. Raises NotFound."""
        assert subject.critique is not None
        key = keys.critique(run, subject.proof_id, subject.critique)
        return get_record(self._store, key, Critique)

    def with_judgement(self, run: str, critique: Critique) -> ReadCritique:
        where = run, critique.proof_id, critique.index
        judgement = find_judgement(self._store, *where)
        metas = tuple(meta_critiques_of(self._store, *where).values())
        return ReadCritique(critique, judgement.confirmed if judgement else None, metas)

    def trained(self, run: str, proof_id: str) -> list[TrainingStep]:
        """The training steps that used grades of this proof."""
        with self._lock:
            steps = self._steps.setdefault(
                run, ReadOnce(self._store, keys.all_steps(run), TrainingStep, _itself)
            )
        return [step for step in steps.all().values() if proof_id in step.grades]


def _itself(record: R) -> R:
    return record


def _urgency(read: ReadCritique) -> tuple[bool, float, int]:
    score = read.critique.verdict.score
    return read.confirmed is not True, 2.0 if score is None else score, read.critique.index
