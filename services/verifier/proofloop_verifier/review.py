"""Criticises proofs. From `ProofWritten` comes critique i of n in the store; out goes
`ProofReviewed`.

A proof that has its label needs no more critiques: waiting ones are skipped, running ones cancelled
in the engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.schema import keys
from proofloop.schema.events import Event, ProofReviewed, ProofWritten
from proofloop.schema.ids import critique_name
from proofloop.schema.records import Critique, Proof
from proofloop.store import find_record, get_record
from proofloop.worker.calls.model_call import Cancelled, ModelCall
from proofloop.worker.calls.model_request import ModelRequest
from proofloop.worker.tools import Tools


def review(event: ProofWritten, tools: Tools) -> Iterator[Event]:
    """Write critique `index`, unless it is there or the proof is decided."""
    if _is_decided(event, tools):
        return
    key = keys.critique(event.run_id, event.proof_id, event.index)
    try:
        if find_record(tools.store, key, Critique) is None:
            tools.keep(key, _write(event, tools))
    except Cancelled:
        return
    yield ProofReviewed(run_id=event.run_id, proof_id=event.proof_id, index=event.index)


def _write(event: ProofWritten, tools: Tools) -> Critique:
    proof = get_record(tools.store, keys.proof(event.run_id, event.proof_id), Proof)
    problem = tools.runs.problem(event.run_id, proof.problem_id)
    prompt = tools.runs.pack(event.run_id).verify(problem.question, proof.solution)
    request = ModelRequest(
        event.run_id,
        "verifier",
        event.verifier_version,
        prompt,
        event.proof_id,
        critique_name(event.index),
    )
    reply = ModelCall(request, tools).reply(unneeded=lambda: _is_decided(event, tools))
    parsed = tools.runs.reader(event.run_id).evaluation(reply.text, reply.finish_reason)
    return Critique(
        proof_id=event.proof_id,
        index=event.index,
        analysis=parsed.text,
        verdict=reply.verdict(parsed.verdict, request, tools),
        provenance=reply.provenance,
        raw=reply.raw.beside(parsed.text),
    )


def _is_decided(event: ProofWritten, tools: Tools) -> bool:
    return tools.runs.spec(event.run_id).stops_when_decided and tools.store.exists(
        keys.label(event.run_id, event.proof_id)
    )
