"""Labels proofs.

From `ReviewJudged` comes the label once what the store holds decides it; out goes `ProofLabeled`,
exactly once.

Two replicas that both see the last critique write the same key; the label remembers whose message
decided it, and only that one announces it.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.method.label_rule import Decision, decide
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofLabeled, ReviewJudged
from proofloop.schema.ids import SELF_CRITIQUE
from proofloop.schema.records import Judgement, Label, Proof
from proofloop.store import find_record, get_record, put_record
from proofloop.worker.runtime import Tools

UNREADABLE = Decision("unreadable", "unreadable", None, ())


def label(event: ReviewJudged, tools: Tools) -> Iterator[Event]:
    """Write the label, if it is decided and not there yet, and announce it if this message decided
    it.
    """
    key = keys.label(event.run_id, event.proof_id)
    found = find_record(tools.store, key, Label)
    if found is None:
        decided = _decide(event, tools)
        if decided is None:
            return
        found = put_record(tools.store, key, decided)
        if found is decided:  # this process was first
            tools.metrics.labels.labels(found.outcome, found.kind).inc()
    if found.trigger == event.index:
        yield ProofLabeled.of(found)


def _decide(event: ReviewJudged, tools: Tools) -> Label | None:
    proof = get_record(tools.store, keys.proof(event.run_id, event.proof_id), Proof)
    if proof.verdict.outcome != "valid":
        return _label(event, proof, UNREADABLE, self_quality=0.0)
    own, judgements = _judgements(event, tools)
    rule = tools.spec(event.run_id).labeling
    decision = decide(judgements, n=rule.n, k=rule.k)
    if decision is None or own is None or (not rule.stop_early and len(judgements) < rule.n):
        return None
    return _label(event, proof, decision, self_quality=own.quality)


def _judgements(event: ReviewJudged, tools: Tools) -> tuple[Judgement | None, list[Judgement]]:
    """The judgement of the generator's own critique, if it is in, and those of the verifier's
    critiques that are in.
    """
    prefix = keys.judgements(event.run_id, event.proof_id)
    found = [tools.judgement(key) for key in tools.store.list(prefix)]
    own = next((judgement for judgement in found if judgement.index == SELF_CRITIQUE), None)
    return own, [judgement for judgement in found if judgement.index != SELF_CRITIQUE]


def _label(event: ReviewJudged, proof: Proof, decision: Decision, self_quality: float) -> Label:
    return Label(
        run_id=event.run_id,
        proof_id=proof.id,
        problem_id=proof.problem_id,
        group=proof.group,
        outcome=decision.outcome,
        kind=decision.kind,
        score=decision.score,
        self_quality=self_quality,
        critiques=decision.critiques,
        trigger=event.index,
        solved=decision.solved,
    )
