"""Writes proofs.

Handles `ProblemPosed`: stores one proof, then emits `ProofWritten` for each of its first critiques,
and `ProofReviewed` for its self-evaluation.

With [refinement] a message is one attempt. While the self-score is below 1 and attempts remain, the
generator emits `ProblemPosed` for the next attempt, whose prompt shows this one. Only the last
attempt is the proof.

A proof whose format is wrong has nothing to review: it goes straight to the labeler, which closes
it. So does every proof of a run that a checker labels.

In a search by need the run driver requests all reviews but the first critique, and labels the
proofs of a solved problem: those that are not written yet are skipped or cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.config.run_file import RunSpec
from proofloop.method.critique_window import first_critiques
from proofloop.method.prompts import Prompt
from proofloop.method.search_rule import FIRST_CRITIQUES
from proofloop.schema import keys
from proofloop.schema.events import (
    Event,
    ParentProof,
    ProblemPosed,
    ProofReviewed,
    ProofWritten,
    ReviewJudged,
)
from proofloop.schema.ids import SELF_CRITIQUE, attempt_name, proof_name
from proofloop.schema.records import Critique, Proof, RawAnswer, digest
from proofloop.store import find_record, get_record
from proofloop.worker.calls.model_call import ModelCall
from proofloop.worker.calls.model_request import ModelReply, ModelRequest
from proofloop.worker.calls.waiting import Cancelled
from proofloop.worker.tools import Tools


def prove(event: ProblemPosed, tools: Tools) -> Iterator[Event]:
    """Write the proof unless it is stored, and request its reviews or another attempt."""
    key = keys.proof(event.run_id, event.proof_id)
    proof = find_record(tools.store, key, Proof)
    if proof is None:
        if tools.is_stored(_unneeded_once(event, tools)):
            return
        attempt_key = keys.attempt(event.run_id, event.proof_id, event.attempt)
        try:
            attempt = find_record(tools.store, attempt_key, Proof) or _write(event, tools)
        except Cancelled:
            return
        if attempt.verdict.score != 1.0 and _has_another(event, tools):
            tools.keep(attempt_key, attempt)
            yield event.model_copy(update={"attempt": event.attempt + 1})
            return
        proof = tools.keep(key, attempt)
    about = {"run_id": event.run_id, "proof_id": event.proof_id}
    if proof.verdict.outcome != "valid" or tools.runs.spec(event.run_id).labeling.by == "checker":
        yield ReviewJudged(**about, index=SELF_CRITIQUE)
        return
    if not tools.runs.spec(event.run_id).searches_by_need:
        yield ProofReviewed(**about, index=SELF_CRITIQUE)
    for index in range(_first_critiques(tools.runs.spec(event.run_id))):
        yield ProofWritten(**about, index=index, verifier_version=proof.verifier_version)


def _unneeded_once(event: ProblemPosed, tools: Tools) -> str:
    """The key whose record makes the proof unnecessary; empty if it is needed in any case."""
    by_need = tools.runs.spec(event.run_id).searches_by_need
    return keys.label(event.run_id, event.proof_id) if by_need else ""


def _first_critiques(spec: RunSpec) -> int:
    """The number of first critiques. The labeler, or the search, requests more if needed."""
    rule = spec.labeling
    if spec.searches_by_need:
        return FIRST_CRITIQUES
    return first_critiques(n=rule.n, k=rule.k) if spec.stops_when_decided else rule.n


def _has_another(event: ProblemPosed, tools: Tools) -> bool:
    """Whether another attempt may follow this one."""
    return event.attempt + 1 < tools.runs.spec(event.run_id).refinement.iterations


def _write(event: ProblemPosed, tools: Tools) -> Proof:
    request = ModelRequest(
        event.run_id,
        "generator",
        event.generator_version or tools.runs.serving(event.run_id, "generator"),
        _prompt(event, tools),
        event.proof_id,
        proof_name(event.attempt),
        shown_as=attempt_name(event.attempt) if _has_another(event, tools) else None,
    )
    reply = ModelCall(request, tools).reply(_unneeded_once(event, tools))
    return _read(event, request, reply, tools)


def _keep_raw(request: ModelRequest, raw: RawAnswer, tools: Tools) -> str:
    """Store what the model wrote, before the proof that names it; "" for a failed call that brought
    nothing.
    """
    if raw == RawAnswer():
        return ""
    content = digest(f"{raw.text}\0{raw.reasoning}")
    key = keys.raw_answer(request.run_id, request.proof_id, str(request.name), content)
    tools.keep(key, raw)
    return key


def _read(event: ProblemPosed, request: ModelRequest, reply: ModelReply, tools: Tools) -> Proof:
    parsed = tools.runs.reader(event.run_id).proof(reply.text, reply.finish_reason)
    return Proof(
        id=event.proof_id,
        run_id=event.run_id,
        problem_id=event.problem_id,
        group=event.group,
        solution=parsed.solution,
        self_analysis=parsed.self_analysis,
        verdict=reply.verdict(parsed.verdict, request, tools),
        provenance=reply.provenance,
        verifier_version=tools.patiently(lambda: tools.runs.serving(event.run_id, "verifier")),
        parents=tuple(parent.proof_id for parent in event.parents),
        raw_key=_keep_raw(request, reply.raw, tools),
    )


def _prompt(event: ProblemPosed, tools: Tools) -> Prompt:
    pack = tools.runs.pack(event.run_id)
    question = tools.runs.problem(event.run_id, event.problem_id).question
    before = _last_readable(event, tools)
    if before is not None:
        return pack.refine(question, [(before.solution, [before.self_analysis])])
    if event.parents:
        return pack.refine(
            question, [_with_critiques(event.run_id, parent, tools) for parent in event.parents]
        )
    return pack.prove(question)


def _last_readable(event: ProblemPosed, tools: Tools) -> Proof | None:
    """The attempt to go on from: one whose format is wrong has nothing to show."""
    for number in reversed(range(event.attempt)):
        attempt = get_record(tools.store, keys.attempt(event.run_id, event.proof_id, number), Proof)
        if attempt.verdict.outcome == "valid":
            return attempt
    return None


def _with_critiques(run_id: str, parent: ParentProof, tools: Tools) -> tuple[str, list[str]]:
    """An earlier proof with the analyses chosen to be shown beside it."""
    proof = get_record(tools.store, keys.proof(run_id, parent.proof_id), Proof)
    chosen = [
        proof.self_analysis
        if index == SELF_CRITIQUE
        else get_record(tools.store, keys.critique(run_id, proof.id, index), Critique).analysis
        for index in parent.critiques
    ]
    return proof.solution, chosen
