"""The rows of `proofloop runs export`: one for each proof, or for each problem's best proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from proofloop.cli.runs.problems import filled_index
from proofloop.config.run_file import Prices
from proofloop.runs.answers import critiques_of, find_judgement, proofs_of, question_of
from proofloop.runs.grading.history import find_grade, grades_that_count
from proofloop.runs.index.tables import Choice, problem_rows
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.records import Critique, Grade, Proof, Score
from proofloop.store import Store, find_record


@dataclass(frozen=True)
class ExportedCritique:
    """A critique. `confirmed`: whether the meta-verifiers confirm its issues; None if it has none,
    was not judged, or too few judgements were readable.
    """

    critique: int
    score: Score | None
    confirmed: bool | None
    analysis: str
    unreadable_because: str | None
    model: str
    tokens: int


@dataclass(frozen=True)
class ExportedProof:
    """A proof. `score`, `by` and `comment` are a person's if one graded it, else the label's.

    `critiques_passed` of `critiques_read` readable critiques give it score 1. `refines`: the ids of
    the proofs that it refines. `critiques`: None unless they are requested.
    """

    run: str
    problem: str
    proof: str
    question: str
    solution: str
    score: Score | None
    by: str | None
    comment: str | None
    outcome: str | None
    solved: bool
    critiques_read: int
    critiques_passed: int
    self_score: Score | None
    self_evaluation: str
    unreadable_because: str | None
    refines: tuple[str, ...]
    model: str
    served_by: str
    seed: int
    tokens: int
    critiques: tuple[ExportedCritique, ...] | None


class Filter(NamedTuple):
    """The proofs that become rows, and whether the rows have their critiques."""

    people: bool = False
    scored: bool = False
    critiques: bool = False


def proof_rows(store: Store, run: str, wanted: Filter) -> Iterator[ExportedProof]:
    """A row for each proof of the run, in the order of their ids. Reads one proof at a time."""
    grades = grades_that_count(store, run)
    for proof in proofs_of(store, run):
        grade = grades.get((proof.id, None))
        if wanted.people and grade is None:
            continue
        row = _row(store, proof, grade, with_critiques=wanted.critiques)
        if not wanted.scored or row.score is not None:
            yield row


def best_rows(store: Store, run: str, wanted: Filter) -> Iterator[ExportedProof]:
    """A row for the best labeled proof of each problem, if it is readable: see `runs problems`."""
    problems, _ = problem_rows(filled_index(store, run), run, Choice(), Prices())
    for problem in problems:
        proof = problem.best and find_record(store, keys.proof(run, problem.best), Proof)
        if proof and proof.verdict.outcome == "valid":
            grade = find_grade(store, run, proof.id)
            yield _row(store, proof, grade, with_critiques=wanted.critiques)


def _critiques(store: Store, proof: Proof) -> list[Critique]:
    """The verifier's critiques, without the generator's own."""
    found = critiques_of(store, proof.run_id, proof.id)
    return [critique for critique in found if critique.index >= 0]


def _row(store: Store, proof: Proof, grade: Grade | None, *, with_critiques: bool) -> ExportedProof:
    label = find_label(store, proof.run_id, proof.id)
    critiques = _critiques(store, proof)
    scored = grade or label
    return ExportedProof(
        run=proof.run_id,
        problem=proof.problem_id,
        proof=proof.id,
        question=question_of(store, proof.run_id, proof.problem_id),
        solution=proof.solution,
        score=scored.score if scored else None,
        by=scored.by if scored else None,
        comment=grade.comment if grade else None,
        outcome=label.outcome if label else None,
        solved=bool(label and label.solved),
        critiques_read=sum(critique.verdict.score is not None for critique in critiques),
        critiques_passed=sum(critique.verdict.score == 1.0 for critique in critiques),
        self_score=proof.verdict.score,
        self_evaluation=proof.self_analysis,
        unreadable_because=proof.verdict.shared_reason or None,
        refines=proof.parents,
        model=proof.provenance.model_version,
        served_by=proof.provenance.served_by,
        seed=proof.provenance.seed,
        tokens=proof.provenance.completion_tokens,
        critiques=tuple(_critique_row(store, proof, critique) for critique in critiques)
        if with_critiques
        else None,
    )


def _critique_row(store: Store, proof: Proof, critique: Critique) -> ExportedCritique:
    judgement = find_judgement(store, proof.run_id, proof.id, critique.index)
    return ExportedCritique(
        critique=critique.index,
        score=critique.verdict.score,
        confirmed=judgement.confirmed if judgement else None,
        analysis=critique.analysis,
        unreadable_because=critique.verdict.shared_reason or None,
        model=critique.provenance.model_version,
        tokens=critique.provenance.completion_tokens,
    )
