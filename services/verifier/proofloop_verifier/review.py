"""Criticises proofs. Handles `ProofWritten`: stores critique i of n and emits `ProofReviewed`. In a
search by need it emits nothing, because the run driver requests the judgements.

A proof that has its label needs no more critiques: waiting ones are skipped, running ones cancelled
in the engine. A critique that cannot be read is requested once more; both answers are stored.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.schema import keys
from proofloop.schema.events import Event, ProofReviewed, ProofWritten
from proofloop.schema.ids import AnswerName, critique_name, unread_name
from proofloop.schema.records import Critique
from proofloop.store import find_record
from proofloop.worker.calls.model_call import ModelCall
from proofloop.worker.calls.model_request import ModelRequest
from proofloop.worker.calls.waiting import Cancelled
from proofloop.worker.tools import Tools


def review(event: ProofWritten, tools: Tools) -> Iterator[Event]:
    """Write critique `index`, unless it is stored or the proof is decided."""
    if tools.is_stored(_unneeded_once(event, tools)):
        return
    key = keys.critique(event.run_id, event.proof_id, event.index)
    try:
        if find_record(tools.store, key, Critique) is None:
            tools.keep(key, _write(event, tools))
    except Cancelled:
        return
    if not tools.runs.spec(event.run_id).searches_by_need:
        yield ProofReviewed(run_id=event.run_id, proof_id=event.proof_id, index=event.index)


def _write(event: ProofWritten, tools: Tools) -> Critique:
    if not tools.runs.spec(event.run_id).retries_unreadable:
        return _request(event, tools, critique_name(event.index))
    name, unread = critique_name(event.index), unread_name(event.index)
    unread_key = keys.unread_critique(event.run_id, event.proof_id, event.index)
    if not tools.store.exists(unread_key):
        first = _request(event, tools, name, shown_as=unread)
        if first.verdict.outcome not in ("malformed", "truncated"):
            return first
        tools.keep(unread_key, first)
    return _request(event, tools, unread, shown_as=name)


def _request(
    event: ProofWritten, tools: Tools, name: AnswerName, shown_as: AnswerName | None = None
) -> Critique:
    proof = tools.runs.proof(event.run_id, event.proof_id)
    problem = tools.runs.problem(event.run_id, proof.problem_id)
    pack = tools.runs.pack(event.run_id)
    prompt = pack.verify(problem.question, proof.solution, **problem.aids)
    request = ModelRequest(
        event.run_id, "verifier", event.verifier_version, prompt, event.proof_id, name, shown_as
    )
    reply = ModelCall(request, tools).reply(_unneeded_once(event, tools))
    parsed = tools.runs.reader(event.run_id).evaluation(reply.text, reply.finish_reason)
    return Critique(
        proof_id=event.proof_id,
        index=event.index,
        analysis=parsed.text,
        verdict=reply.verdict(parsed.verdict, request, tools),
        provenance=reply.provenance,
        raw=reply.raw.beside(parsed.text),
    )


def _unneeded_once(event: ProofWritten, tools: Tools) -> str:
    """The key whose record makes the critique unnecessary; empty if all n are needed."""
    stops = tools.runs.spec(event.run_id).labeling.stop_early
    return keys.label(event.run_id, event.proof_id) if stops else ""
