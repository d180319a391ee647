"""Judges critiques.

Handles `ProofReviewed`: stores each meta-critique of critique i as it comes, then their judgement,
and emits `ReviewJudged`.

Only a critique that reports an issue costs calls: one without an issue claims nothing, and an
unreadable one cannot be judged. Where the verifier trains on a graded proof, a critique with
R_score = 0 costs none: its reward is 0 whatever R_meta is. A given analysis gets all its
meta-critiques, whatever its score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.labeling import Labeling
from proofloop.method.label_rule import majority
from proofloop.method.rewards import score_reward
from proofloop.runs.answers import meta_critiques_of
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofReviewed, ReviewJudged
from proofloop.schema.ids import SELF_CRITIQUE, meta_name
from proofloop.schema.records import Critique, Judgement, MetaCritique, Proof, Score, Verdict
from proofloop.store import get_record, put_record
from proofloop.worker.calls.model_call import ModelCall, replies_of
from proofloop.worker.calls.model_request import LATE_PRIORITY, ModelReply, ModelRequest
from proofloop.worker.calls.waiting import Cancelled
from proofloop.worker.tools import Tools


def judge(event: ProofReviewed, tools: Tools) -> Iterator[Event]:
    """Write the judgement of critique `index`, unless it is stored or the proof is decided."""
    if tools.is_stored(_unneeded_once(event, tools)):
        return
    key = keys.judgement(event.run_id, event.proof_id, event.index)
    try:
        if not tools.store.exists(key):
            put_record(tools.store, key, _judgement(event, tools))
    except Cancelled:
        return
    yield ReviewJudged(run_id=event.run_id, proof_id=event.proof_id, index=event.index)


def _judgement(event: ProofReviewed, tools: Tools) -> Judgement:
    proof = tools.runs.proof(event.run_id, event.proof_id)
    analysis, verdict = _critique(event, proof, tools)
    confirmed, quality = _confirmation(event, proof, analysis, verdict, tools)
    return Judgement(
        proof_id=proof.id, index=event.index, verdict=verdict, confirmed=confirmed, quality=quality
    )


def _confirmation(
    event: ProofReviewed, proof: Proof, analysis: str, verdict: Verdict, tools: Tools
) -> tuple[bool | None, float | None]:
    """Whether the meta-critiques confirm the critique, and R_meta."""
    spec = tools.runs.spec(event.run_id)
    count = _metas(event, proof, spec)
    if not count or (verdict.score in (None, 1.0) and not _is_given(event, proof)):
        return None, 0.0 if verdict.score is None else 1.0
    if _earns_nothing(event, proof, verdict, spec):
        return None, None
    is_late = event.index == SELF_CRITIQUE or verdict.score == 0.5
    priority = LATE_PRIORITY if is_late else None
    assessments = _assess(event, proof, analysis, count, tools, priority)
    return summarise(assessments, spec.labeling, count)


def _earns_nothing(event: ProofReviewed, proof: Proof, verdict: Verdict, spec: RunSpec) -> bool:
    """Whether the verifier's critique has R_score = 0, and R_meta serves its reward alone: the
    label is the given score.
    """
    if _is_given(event, proof) or proof.given is None or proof.given.score is None:
        return False
    if not spec.reward.meta or "verifier" not in spec.training.roles or verdict.score is None:
        return False
    return score_reward(verdict.score, proof.given.score) == 0.0


def _is_given(event: ProofReviewed, proof: Proof) -> bool:
    """Whether the critique was given with the run."""
    return event.index == 0 and proof.given is not None and proof.given.is_analysis


def _metas(event: ProofReviewed, proof: Proof, spec: RunSpec) -> int:
    """The number of meta-critiques that the critique may get."""
    if _is_given(event, proof):
        return spec.labeling.metas_of_given
    return spec.labeling.metas_of_self if event.index == SELF_CRITIQUE else spec.labeling.m


def summarise(
    found: Collection[MetaCritique], rule: Labeling, m: int
) -> tuple[bool | None, float | None]:
    """The majority and the mean of the readable meta-critiques. The majority is None if the
    unreadable ones could change it, the mean if there is no readable one.
    """
    scores = _scores(found)
    return _majority(scores, rule, m), sum(scores) / len(scores) if scores else None


def _scores(found: Collection[MetaCritique]) -> list[Score]:
    return [each.verdict.score for each in found if each.verdict.score is not None]


def _critique(event: ProofReviewed, proof: Proof, tools: Tools) -> tuple[str, Verdict]:
    if event.index == SELF_CRITIQUE:
        return proof.self_analysis, proof.verdict
    critique = get_record(
        tools.store, keys.critique(event.run_id, event.proof_id, event.index), Critique
    )
    return critique.analysis, critique.verdict


def _assess(
    event: ProofReviewed, proof: Proof, analysis: str, m: int, tools: Tools, priority: int | None
) -> list[MetaCritique]:
    """m meta-critiques; with early stop first as few as can be a majority, then the rest only if
    they disagree or cannot be read.

    Of the self-critique and of a given one always all m: each is wanted for itself.
    """
    rule = tools.runs.spec(event.run_id).labeling
    problem = tools.runs.problem(event.run_id, proof.problem_id)
    pack = tools.runs.pack(event.run_id)
    request = ModelRequest(
        event.run_id,
        "meta_verifier",
        proof.meta_verifier_version or tools.runs.serving(event.run_id, "meta_verifier"),
        pack.judge(problem.question, proof.solution, analysis, **problem.aids),
        event.proof_id,
        meta_name(event.index, 0),
        priority=priority,
        is_trained_on=_trains_verifier(event, proof, tools),
    )
    wants_all = event.index == SELF_CRITIQUE or _is_given(event, proof) or not rule.stop_early
    first = m if wants_all else m // 2 + 1
    found = meta_critiques_of(tools.store, event.run_id, event.proof_id, event.index)
    assessments = _ask(event, request, range(first), found, tools)
    if _majority(_scores(assessments), rule, m) is None:
        assessments += _ask(event, request, range(first, m), found, tools)
    return assessments


def _trains_verifier(event: ProofReviewed, proof: Proof, tools: Tools) -> bool:
    """Whether the verifier learns from the answers: one model is then trained in both roles."""
    training = tools.runs.spec(event.run_id).training
    return _is_given(event, proof) and training.learner_of_analyses == "verifier"


def _majority(scores: Sequence[Score], rule: Labeling, m: int) -> bool | None:
    return majority(sum(score >= rule.confirm_at for score in scores), len(scores), m)


def _ask(
    event: ProofReviewed,
    request: ModelRequest,
    numbers: range,
    found: dict[int, MetaCritique],
    tools: Tools,
) -> list[MetaCritique]:
    """These meta-critiques. Those that are not in `found` are requested all at once, and each is
    stored as it comes.
    """
    missing = [number for number in numbers if number not in found]
    requests = [replace(request, name=meta_name(event.index, number)) for number in missing]
    calls = [ModelCall(each, tools) for each in requests]
    for position, reply in replies_of(calls, _unneeded_once(event, tools)):
        number = missing[position]
        key = keys.meta_critique(event.run_id, event.proof_id, event.index, number)
        found[number] = tools.keep(key, _read(reply, requests[position], tools))
    return [found[number] for number in numbers]


def _read(reply: ModelReply, request: ModelRequest, tools: Tools) -> MetaCritique:
    parsed = tools.runs.reader(request.run_id).meta_critique(reply.text, reply.finish_reason)
    verdict = reply.verdict(parsed.verdict, request, tools)
    raw = reply.raw.beside(parsed.text)
    return MetaCritique(analysis=parsed.text, verdict=verdict, provenance=reply.provenance, raw=raw)


def _unneeded_once(event: ProofReviewed, tools: Tools) -> str:
    """The key whose record makes the judgement unnecessary; empty if it is needed in any case.

    The self-critique is judged all the same: its quality is part of the generator's reward. A
    search rewards nothing.
    """
    spec = tools.runs.spec(event.run_id)
    early = spec.searches_by_need or (spec.stops_when_decided and event.index != SELF_CRITIQUE)
    return keys.label(event.run_id, event.proof_id) if early else ""
