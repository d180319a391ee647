"""What the store holds for people: which proofs wait for a grade, and all there is to read about
one of them.

Labels and grades never change, so each is read once in the life of a process, however often a page
is asked for.
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
"""Records read at once: an object store answers each in milliseconds, and a run may have a hundred
thousand.
"""

LISTED_S = 5.0
"""How old a list of labels may be: that of a large run takes seconds."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a label; those with the lowest `lot` are the random sample, the same one in
    every process.
    """

    proof_id: str
    problem_id: str
    outcome: LabelOutcome
    lot: int

    @classmethod
    def of(cls, label: Label) -> Kept:
        lot = derive_seed("check", label.run_id, label.proof_id)
        return cls(label.proof_id, label.problem_id, label.outcome, lot)


@dataclass(frozen=True)
class Standing:
    """How far the people are with a run, by proof.

    `open`: nobody could decide them. `checks`: decided proofs whose label is still to be checked.
      `agreement`: the share of checked labels that are the grader's score too.
    """

    open: tuple[Kept, ...]
    checks: tuple[Kept, ...]
    grades: dict[str, Grade]
    agreement: Figure

    @property
    def waiting(self) -> tuple[Kept, ...]:
        return self.open + self.checks

    def may_grade(self, proof_id: str) -> bool:
        """Whether a grade of this proof is wanted, or was given before."""
        return proof_id in self.grades or any(kept.proof_id == proof_id for kept in self.waiting)

    def after(self, proof_id: str) -> str | None:
        """The proof to grade after this one, which may be graded by now: the open ones, then the
        checks, then again.
        """
        places = [(False, kept.proof_id) for kept in self.open] + [
            (True, kept.proof_id) for kept in self.checks
        ]
        here = self._is_check(proof_id), proof_id
        later = [place for place in places if place > here]
        return next((name for _, name in later + places if name != proof_id), None)

    def _is_check(self, proof_id: str) -> bool:
        grade = self.grades.get(proof_id)
        return (
            grade.checks_label if grade else any(kept.proof_id == proof_id for kept in self.checks)
        )


@dataclass(frozen=True)
class ReadCritique:
    """A critique with what the meta-verifier thinks of it."""

    critique: Critique
    confirmed: bool | None
    assessments: tuple[MetaCritique, ...]


@dataclass(frozen=True)
class Case:
    """All there is to read about one proof. Critiques that are confirmed come first, then those
    with low scores.
    """

    proof: Proof
    question: str
    critiques: tuple[ReadCritique, ...]


class Cases:
    """The cases of a store; `spot_checks` decided proofs of each run are offered as well."""

    def __init__(self, store: Store, spot_checks: int) -> None:
        self._store, self._spot_checks = store, spot_checks
        self._lock = threading.Lock()
        self._labels: dict[str, ReadOnce[Label, Kept]] = {}
        self._grades: dict[str, ReadOnce[Grade, Grade]] = {}

    def runs(self) -> Iterator[str]:
        """The runs there are."""
        for key in self._store.list(keys.SPECS):
            yield keys.name_of(key)

    def has_run(self, run: str) -> bool:
        return self._store.exists(keys.run_spec(run))

    def standing(self, run: str) -> Standing:
        with self._lock:
            labels = self._labels.setdefault(
                run, ReadOnce(self._store, keys.labels(run), Label, Kept.of)
            )
            grades = self._grades.setdefault(
                run, ReadOnce(self._store, keys.grades(run), Grade, _itself)
            )
        kept, graded = labels.all(age_s=LISTED_S).values(), grades.all()
        undecided = [label for label in kept if label.outcome == "undecided"]
        decided = [label for label in kept if label.outcome in ("accepted", "rejected")]
        return Standing(
            open=tuple(label for label in undecided if label.proof_id not in graded),
            checks=tuple(label for label in self._sample(decided) if label.proof_id not in graded),
            grades=graded,
            agreement=_agreement(graded),
        )

    def question(self, run: str, problem_id: str) -> str:
        problem = find_record(self._store, keys.problem(run, problem_id), Problem)
        return problem.question if problem else ""

    def read(self, run: str, proof_id: str) -> Case:
        """Raises NotFound if there is no such proof."""
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

    def _sample(self, decided: Sequence[Kept]) -> list[Kept]:
        """In the order of the store."""
        drawn = heapq.nsmallest(self._spot_checks, decided, key=lambda label: label.lot)
        return sorted(drawn, key=lambda label: label.proof_id)


class ReadOnce(Generic[R, T]):
    """What is kept of each record below a prefix, by name. Safe to share between threads."""

    def __init__(self, store: Store, prefix: str, kind: type[R], keep: Callable[[R], T]) -> None:
        self._store, self._prefix, self._kind, self._keep = store, prefix, kind, keep
        self._kept: dict[str, T] = {}
        self._listed_s = -math.inf
        self._lock = threading.Lock()

    def all(self, *, age_s: float = 0.0) -> dict[str, T]:
        """What is there now, or was `age_s` ago, in the order of the names."""
        with self._lock:
            if time.monotonic() - self._listed_s <= age_s:
                return self._kept
            names = [keys.name_of(key) for key in self._store.list(self._prefix)]
            new = [name for name in names if name not in self._kept]
            with ThreadPoolExecutor(READERS) as pool:
                known = self._kept | dict(zip(new, pool.map(self._read, new), strict=True))
            self._kept, self._listed_s = {name: known[name] for name in names}, time.monotonic()
            return self._kept

    def _read(self, name: str) -> T:
        return self._keep(get_record(self._store, f"{self._prefix}{name}.json", self._kind))


def _itself(grade: Grade) -> Grade:
    return grade


def _agreement(grades: dict[str, Grade]) -> Figure:
    """Problems are clusters, as everywhere."""
    clusters = Clusters()
    for grade in grades.values():
        if grade.checks_label:
            clusters.add(grade.label.problem_id, float(grade.score == grade.label.score))
    return clusters.figure()


def _urgency(read: ReadCritique) -> tuple[bool, float, int]:
    score = read.critique.verdict.score
    return read.confirmed is not True, 2.0 if score is None else score, read.critique.index
