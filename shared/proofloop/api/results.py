"""The results of a run: each proof with its label and its critiques."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proofloop.method.domains import Checker, ProofFinding
from proofloop.runs.answers import critiques_of, find_judgement, question_of
from proofloop.runs.labels import find_label
from proofloop.runs.search.records import searches_of
from proofloop.schema import keys
from proofloop.schema.records import Critique, Proof, Score, Verdict
from proofloop.store import Store, get_record


@dataclass(frozen=True)
class CritiqueResult:
    """One critique of a proof. `score` is None if it was unreadable: see `verdict.reason`.

    `confirmed`: whether the meta-verifiers confirm its issues; None if it reports none, or
      if too few judgements were readable.
    """

    analysis: str
    score: Score | None
    confirmed: bool | None
    verdict: Verdict


@dataclass(frozen=True)
class ProofResult:
    """One proof. `score` is that of its label: 0, 0.5 or 1; None if it has none.

    `outcome`: the kind of decision behind the label, None without a label. `solved`: all critiques
    gave it 1. `verdict`: whether the generator's answer was readable. `finding` is the exact
    checker's, where the domain has one; no model sees it.
    """

    id: str
    problem_id: str
    question: str
    proof: str
    score: Score | None
    outcome: str | None
    solved: bool
    self_score: Score | None
    self_evaluation: str
    verdict: Verdict
    critiques: tuple[CritiqueResult, ...]
    finding: ProofFinding | None = None


def read_result(store: Store, proof: Proof, checker: Checker | None = None) -> ProofResult:
    """A proof with its label and its critiques, as far as they are in the store."""
    run_id = proof.run_id
    question = question_of(store, run_id, proof.problem_id)
    label = find_label(store, run_id, proof.id)
    return ProofResult(
        id=proof.id,
        problem_id=proof.problem_id,
        question=question,
        proof=proof.solution,
        score=label.score if label else None,
        outcome=label.outcome if label else None,
        solved=bool(label and label.solved),
        self_score=proof.verdict.score,
        self_evaluation=proof.self_analysis,
        verdict=proof.verdict,
        critiques=tuple(
            _critique(store, run_id, critique) for critique in critiques_of(store, run_id, proof.id)
        ),
        finding=checker.check_proof(question, proof.solution) if checker else None,
    )


def _critique(store: Store, run_id: str, critique: Critique) -> CritiqueResult:
    judgement = find_judgement(store, run_id, critique.proof_id, critique.index)
    return CritiqueResult(
        analysis=critique.analysis,
        score=critique.verdict.score,
        confirmed=judgement.confirmed if judgement else None,
        verdict=critique.verdict,
    )


def labeled_proofs(store: Store, run_id: str) -> Iterator[str]:
    """The ids of the proofs that have a label. A search may label proofs that are never written."""
    for key in store.list(keys.labels(run_id)):
        if store.exists(keys.proof(run_id, keys.name_of(key))):
            yield keys.name_of(key)


def best_proofs(store: Store, run_id: str) -> Iterator[Proof]:
    """The proof that each search chose."""
    for search in searches_of(store, run_id):
        if search.best:
            yield get_record(store, keys.proof(run_id, search.best), Proof)
