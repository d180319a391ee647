"""The proofs of a run that people may grade, and the records that they read for a grade.

Labels and grades never change, so a process reads each of them once.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from proofloop.runs.answers import meta_critiques_of
from proofloop.runs.figures import Clusters, Figure, critiques_of
from proofloop.schema import keys
from proofloop.schema.records import (
    Critique,
    Grade,
    Judgement,
    Label,
    LabelOutcome,
    MetaCritique,
    Problem,
    Proof,
    Record,
    derive_seed,
)
from proofloop.store import Store, find_record, get_record

R = TypeVar("R", bound=Record)
T = TypeVar("T")

READERS = 8
"""Parallel reads: an object store takes milliseconds a record, and a run may have a hundred
thousand.
"""

LISTED_S = 5.0
"""The longest time to reuse a list of labels: listing those of a large run takes seconds."""


@dataclass(frozen=True)
class LabelSummary:
    """The part of a label that stays in memory. The labels with the lowest `lot` are the random
    sample, the same in every process.
    """

    proof_id: str
    problem_id: str
    outcome: LabelOutcome
    lot: int

    @classmethod
    def of(cls, label: Label) -> LabelSummary:
        lot = derive_seed("check", label.run_id, label.proof_id)
        return cls(label.proof_id, label.problem_id, label.outcome, lot)


@dataclass(frozen=True)
class ReviewProgress:
    """The graded and the waiting proofs of a run.

    `open`: undecided proofs without a grade. `checks`: proofs with a label in the sample, without a
    grade. `agreement`: the share of checked labels that equal the grader's score.
    """

    open: tuple[LabelSummary, ...]
    checks: tuple[LabelSummary, ...]
    grades: dict[str, Grade]
    agreement: Figure

    @property
    def waiting(self) -> tuple[LabelSummary, ...]:
        return self.open + self.checks

    def may_grade(self, proof_id: str) -> bool:
        """Whether this proof waits for a grade or has one."""
        return proof_id in self.grades or any(label.proof_id == proof_id for label in self.waiting)

    def after(self, proof_id: str) -> str | None:
        """The proof to grade after this one: the next open proof, then the checks, then from the
        start. `proof_id` may have a grade by now.
        """
        places = [(False, label.proof_id) for label in self.open]
        places += [(True, label.proof_id) for label in self.checks]
        here = self._is_check(proof_id), proof_id
        later = [place for place in places if place > here]
        return next((name for _, name in later + places if name != proof_id), None)

    def _is_check(self, proof_id: str) -> bool:
        if grade := self.grades.get(proof_id):
            return grade.checks_label
        return any(label.proof_id == proof_id for label in self.checks)


@dataclass(frozen=True)
class ReadCritique:
    """A critique with its meta-critiques."""

    critique: Critique
    confirmed: bool | None
    assessments: tuple[MetaCritique, ...]


@dataclass(frozen=True)
class Case:
    """A proof with its problem and critiques: first the confirmed ones, then by rising score."""

    proof: Proof
    question: str
    critiques: tuple[ReadCritique, ...]


class Cases:
    """The cases of a store, with `spot_checks` decided proofs of each run to check."""

    def __init__(self, store: Store, spot_checks: int) -> None:
        self._store = store
        self._spot_checks = spot_checks
        self._lock = threading.Lock()
        self._labels: dict[str, ReadOnce[Label, LabelSummary]] = {}
        self._grades: dict[str, ReadOnce[Grade, Grade]] = {}

    def runs(self) -> Iterator[str]:
        """The names of the runs."""
        for key in self._store.list(keys.SPECS):
            yield keys.name_of(key)

    def has_run(self, run: str) -> bool:
        return self._store.exists(keys.run_spec(run))

    def progress(self, run: str) -> ReviewProgress:
        with self._lock:
            labels = self._labels.setdefault(
                run, ReadOnce(self._store, keys.labels(run), Label, LabelSummary.of)
            )
            grades = self._grades.setdefault(
                run, ReadOnce(self._store, keys.grades(run), Grade, _itself)
            )
        found = labels.all(age_s=LISTED_S).values()
        graded = grades.all()
        undecided = [label for label in found if label.outcome == "undecided"]
        decided = [label for label in found if label.outcome in ("accepted", "rejected")]
        return ReviewProgress(
            open=tuple(label for label in undecided if label.proof_id not in graded),
            checks=tuple(label for label in self._sample(decided) if label.proof_id not in graded),
            grades=graded,
            agreement=_agreement(graded),
        )

    def question(self, run: str, problem_id: str) -> str:
        problem = find_record(self._store, keys.problem(run, problem_id), Problem)
        return problem.question if problem else ""

    def read(self, run: str, proof_id: str) -> Case:
        """The case of a proof. Raises NotFound."""
        proof = get_record(self._store, keys.proof(run, proof_id), Proof)
        critiques = [
            self._critique(run, critique) for critique in critiques_of(self._store, run, proof_id)
        ]
        return Case(
            proof=proof,
            question=self.question(run, proof.problem_id),
            critiques=tuple(sorted(critiques, key=_urgency)),
        )

    def _critique(self, run: str, critique: Critique) -> ReadCritique:
        where = run, critique.proof_id, critique.index
        judgement = find_record(self._store, keys.judgement(*where), Judgement)
        metas = tuple(meta_critiques_of(self._store, *where).values())
        return ReadCritique(critique, judgement.confirmed if judgement else None, metas)

    def _sample(self, decided: Sequence[LabelSummary]) -> list[LabelSummary]:
        """The random sample, in the order of the store."""
        drawn = heapq.nsmallest(self._spot_checks, decided, key=lambda label: label.lot)
        return sorted(drawn, key=lambda label: label.proof_id)


class ReadOnce(Generic[R, T]):
    """The records below a prefix by name, each read once and shortened by `keep`. Thread-safe."""

    def __init__(self, store: Store, prefix: str, kind: type[R], keep: Callable[[R], T]) -> None:
        self._store = store
        self._prefix = prefix
        self._kind = kind
        self._keep = keep
        self._kept: dict[str, T] = {}
        self._listed_s = -math.inf
        self._lock = threading.Lock()

    def all(self, *, age_s: float = 0.0) -> dict[str, T]:
        """All records in the order of their names, from a list that is at most `age_s` old."""
        with self._lock:
            if time.monotonic() - self._listed_s <= age_s:
                return self._kept
            names = [keys.name_of(key) for key in self._store.list(self._prefix)]
            new = [name for name in names if name not in self._kept]
            with ThreadPoolExecutor(READERS) as pool:
                known = self._kept | dict(zip(new, pool.map(self._read, new), strict=True))
            self._kept = {name: known[name] for name in names}
            self._listed_s = time.monotonic()
            return self._kept

    def _read(self, name: str) -> T:
        return self._keep(get_record(self._store, f"{self._prefix}{name}.json", self._kind))


def _itself(grade: Grade) -> Grade:
    return grade


def _agreement(grades: dict[str, Grade]) -> Figure:
    """The agreement with an interval over problems, as in all figures."""
    clusters = Clusters()
    for grade in grades.values():
        if grade.checks_label:
            clusters.add(grade.label.problem_id, float(grade.score == grade.label.score))
    return clusters.figure()


def _urgency(read: ReadCritique) -> tuple[bool, float, int]:
    score = read.critique.verdict.score
    return read.confirmed is not True, 2.0 if score is None else score, read.critique.index
