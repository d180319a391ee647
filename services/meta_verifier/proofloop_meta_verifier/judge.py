"""Judges critiques.

From `ProofReviewed` come the meta-critiques of critique i and their sum in the store; out goes `ReviewJudged`.

Only a critique that reports an issue costs anything: silence claims nothing, and what cannot be read cannot be
confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from proofloop import keys
from proofloop.asking import Answer, Asked, Cancelled, Question
from proofloop.labeling import majority
from proofloop.messages import SELF_CRITIQUE, Event, ProofReviewed, ReviewJudged
from proofloop.prompts import Prompt
from proofloop.records import Critique, Judgement, MetaCritique, MetaCritiques, Proof, Verdict
from proofloop.runspec import Labeling
from proofloop.runtime import Tools
from proofloop.store import find_record, get_record, put_record


def judge(event: ProofReviewed, tools: Tools) -> Iterator[Event]:
    """Write what the meta-verifier thinks of critique `index`, unless it is there or the proof is decided."""
    if _is_decided(event, tools):
        return
    key = keys.judgement(event.run_id, event.proof_id, event.index)
    try:
        if not tools.store.exists(key):
            put_record(tools.store, key, _judgement(event, tools))
    except Cancelled:
        return
    yield ReviewJudged(run_id=event.run_id, proof_id=event.proof_id, index=event.index)


def _judgement(event: ProofReviewed, tools: Tools) -> Judgement:
    proof = get_record(tools.store, keys.proof(event.run_id, event.proof_id), Proof)
    analysis, verdict = _critique(event, proof, tools)
    if verdict.score is None or verdict.score == 1.0:
        quality = 0.0 if verdict.score is None else 1.0
        return Judgement(proof_id=proof.id, index=event.index, verdict=verdict, confirmed=None, quality=quality)
    key = keys.meta_critiques(event.run_id, event.proof_id, event.index)
    found = find_record(tools.store, key, MetaCritiques) or tools.keep(key, _assess(event, proof, analysis, tools))
    return summarise(found, verdict, tools.spec(event.run_id).labeling)


def summarise(found: MetaCritiques, verdict: Verdict, rule: Labeling) -> Judgement:
    """The majority and the mean of the meta-critiques; one that cannot be read confirms nothing and enters no mean."""
    scores = [assessment.verdict.score for assessment in found.assessments if assessment.verdict.score is not None]
    confirmed = majority(sum(score >= rule.confirm_at for score in scores), len(found.assessments), rule.m)
    quality = sum(scores) / len(scores) if scores else 0.0
    return Judgement(
        proof_id=found.proof_id, index=found.index, verdict=verdict, confirmed=bool(confirmed), quality=quality
    )


def _critique(event: ProofReviewed, proof: Proof, tools: Tools) -> tuple[str, Verdict]:
    if event.index == SELF_CRITIQUE:
        return proof.self_analysis, proof.verdict
    critique = get_record(tools.store, keys.critique(event.run_id, event.proof_id, event.index), Critique)
    return critique.analysis, critique.verdict


def _assess(event: ProofReviewed, proof: Proof, analysis: str, tools: Tools) -> MetaCritiques:
    """m meta-critiques; with early stop first as few as can be a majority, then the rest only if they disagree.

    Of the self-critique always all m: their mean enters the generator's reward, and stopping early must change nothing.
    """
    rule = tools.spec(event.run_id).labeling
    question = tools.problem(event.run_id, proof.problem_id).question
    prompt = tools.pack(event.run_id).judge(question, proof.solution, analysis)
    version = tools.serving(event.run_id, "meta_verifier")
    first = rule.m // 2 + 1 if rule.stop_early and event.index != SELF_CRITIQUE else rule.m
    assessments = _ask(event, prompt, version, range(first), tools)
    if _majority(assessments, rule) is None:
        assessments += _ask(event, prompt, version, range(first, rule.m), tools)
    return MetaCritiques(proof_id=proof.id, index=event.index, assessments=tuple(assessments))


def _majority(assessments: Sequence[MetaCritique], rule: Labeling) -> bool | None:
    confirms = sum((assessment.verdict.score or 0.0) >= rule.confirm_at for assessment in assessments)
    return majority(confirms, len(assessments), rule.m)


def _ask(event: ProofReviewed, prompt: Prompt, version: str, numbers: range, tools: Tools) -> list[MetaCritique]:
    """These meta-critiques, asked for all at once."""
    name = "self" if event.index == SELF_CRITIQUE else str(event.index)
    asked = [
        Asked(Question(event.run_id, "meta_verifier", version, prompt, event.proof_id, f"meta-{name}-{number}"), tools)
        for number in numbers
    ]
    try:
        return [_read(one.answer(unneeded=lambda: _is_decided(event, tools)), event.run_id, tools) for one in asked]
    except BaseException:
        for one in asked:
            one.cancel()
        raise


def _read(answer: Answer, run_id: str, tools: Tools) -> MetaCritique:
    parsed = tools.reader(run_id).meta_critique(answer.text, answer.finish_reason)
    verdict = answer.verdict(parsed.verdict, "meta_verifier", tools)
    return MetaCritique(analysis=parsed.text, verdict=verdict, provenance=answer.provenance)


def _is_decided(event: ProofReviewed, tools: Tools) -> bool:
    """The self-critique is judged even then: its quality is part of the generator's reward."""
    early = tools.spec(event.run_id).labeling.stop_early and event.index != SELF_CRITIQUE
    return early and tools.store.exists(keys.label(event.run_id, event.proof_id))
