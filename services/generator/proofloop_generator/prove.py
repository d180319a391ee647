"""Writes proofs.

From `ProblemPosed` comes one proof in the store; out go n `ProofWritten`, and `ProofReviewed` for its own critique.

A proof whose format is wrong has nothing to review: it goes straight to the labeler, which closes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop import keys
from proofloop.asking import Answer, Asked, Question
from proofloop.messages import (
    SELF_CRITIQUE,
    Event,
    ParentProof,
    ProblemPosed,
    ProofReviewed,
    ProofWritten,
    ReviewJudged,
)
from proofloop.prompts import Prompt
from proofloop.prompts.parsing import parse_proof
from proofloop.records import Critique, Proof
from proofloop.runtime import Tools
from proofloop.store import find_record, get_record, put_record


def prove(event: ProblemPosed, tools: Tools) -> Iterator[Event]:
    """Write the proof, unless it is there, and ask for its reviews."""
    key = keys.proof(event.run_id, event.proof_id)
    proof = find_record(tools.store, key, Proof) or put_record(tools.store, key, _write(event, tools))
    about = {"run_id": event.run_id, "proof_id": event.proof_id}
    if proof.verdict.outcome != "valid":
        yield ReviewJudged(**about, index=SELF_CRITIQUE)
        return
    yield ProofReviewed(**about, index=SELF_CRITIQUE)
    for index in range(tools.spec(event.run_id).labeling.n):
        yield ProofWritten(**about, index=index, verifier_version=proof.verifier_version)


def _write(event: ProblemPosed, tools: Tools) -> Proof:
    question = Question(
        event.run_id,
        "generator",
        tools.serving(event.run_id, "generator"),
        _prompt(event, tools),
        event.proof_id,
        "proof",
    )
    return _read(event, Asked(question, tools).answer(), tools)


def _read(event: ProblemPosed, answer: Answer, tools: Tools) -> Proof:
    parsed = parse_proof(answer.text, answer.finish_reason)
    return Proof(
        id=event.proof_id,
        run_id=event.run_id,
        problem_id=event.problem_id,
        group=event.group,
        solution=parsed.solution,
        self_analysis=parsed.self_analysis,
        verdict=answer.verdict_or(parsed.verdict),
        provenance=answer.provenance,
        verifier_version=tools.serving(event.run_id, "verifier"),
        parents=tuple(parent.proof_id for parent in event.parents),
    )


def _prompt(event: ProblemPosed, tools: Tools) -> Prompt:
    pack = tools.pack(event.run_id)
    question = tools.problem(event.run_id, event.problem_id).question
    if not event.parents:
        return pack.prove(question)
    return pack.refine(question, [_attempt(event.run_id, parent, tools) for parent in event.parents])


def _attempt(run_id: str, parent: ParentProof, tools: Tools) -> tuple[str, list[str]]:
    """An earlier proof with the analyses chosen to be shown beside it."""
    proof = get_record(tools.store, keys.proof(run_id, parent.proof_id), Proof)
    chosen = [
        proof.self_analysis
        if index == SELF_CRITIQUE
        else get_record(tools.store, keys.critique(run_id, proof.id, index), Critique).analysis
        for index in parent.critiques
    ]
    return proof.solution, chosen
