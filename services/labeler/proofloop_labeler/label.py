"""Labels proofs.

From `ReviewJudged` comes the label once what the store holds decides it; out goes `ProofLabeled`,
exactly once. Until then, out go `ProofWritten` for the critiques that the label still needs.

Two replicas that both see the last critique write the same key; the label remembers whose message
decided it, and only that one announces it. Requests for critiques work in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from proofloop.method.critique_window import critiques_to_ask, first_critiques
from proofloop.method.label_rule import Decision, decide
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofLabeled, ProofWritten, ReviewJudged
from proofloop.schema.ids import SELF_CRITIQUE
from proofloop.schema.records import CritiqueRequest, Judgement, Label, Proof
from proofloop.store import find_record, get_record, put_record
from proofloop.worker.tools import Tools

UNREADABLE = Decision("unreadable", "unreadable", None, ())


@dataclass(frozen=True)
class Judged:
    """The judgements of a proof that are stored: of the generator's own critique, if there is one,
    and of the verifier's critiques.
    """

    own: Judgement | None
    critiques: Sequence[Judgement]


def label(event: ReviewJudged, tools: Tools) -> Iterator[Event]:
    """Write the label if it is decided, and announce it if this message decided it; otherwise ask
    for the critiques that it needs.
    """
    found = find_record(tools.store, keys.label(event.run_id, event.proof_id), Label)
    if found is None:
        proof = get_record(tools.store, keys.proof(event.run_id, event.proof_id), Proof)
        decided = yield from _decide_or_ask(event, proof, tools)
        if decided is None:
            return
        found = _keep(decided, tools)
    if found.trigger == event.index:
        yield ProofLabeled.of(found)


def _keep(decided: Label, tools: Tools) -> Label:
    """The label that is stored from now on: another process may have been first."""
    found = put_record(tools.store, keys.label(decided.run_id, decided.proof_id), decided)
    if found is decided:
        tools.metrics.labels.labels(found.outcome, found.kind).inc()
    return found


def _decide_or_ask(
    event: ReviewJudged, proof: Proof, tools: Tools
) -> Generator[ProofWritten, None, Label | None]:
    """The label, if the stored judgements decide it; otherwise ask for more critiques."""
    if proof.verdict.outcome != "valid":
        return _label(event, proof, UNREADABLE, self_quality=0.0)
    spec, judged = tools.runs.spec(event.run_id), _judged(event, tools)
    decision = decide(judged.critiques, n=spec.labeling.n, k=spec.labeling.k)
    if decision is None:
        if spec.stops_when_decided:
            yield from _ask_for_more(event, proof, judged.critiques, tools)
        return None
    is_early = len(judged.critiques) < spec.labeling.n and not spec.stops_when_decided
    if judged.own is None or is_early:
        return None
    return _label(event, proof, decision, self_quality=judged.own.quality)


def _judged(event: ReviewJudged, tools: Tools) -> Judged:
    prefix = keys.judgements(event.run_id, event.proof_id)
    found = [tools.runs.judgement(key) for key in tools.store.list(prefix)]
    own = next((judgement for judgement in found if judgement.index == SELF_CRITIQUE), None)
    return Judged(own, [judgement for judgement in found if judgement.index != SELF_CRITIQUE])


def _ask_for_more(
    event: ReviewJudged, proof: Proof, judged: Sequence[Judgement], tools: Tools
) -> Iterator[ProofWritten]:
    """Ask for the critiques that the label needs now, and again for those that this message asked
    for when it was delivered before.
    """
    rule = tools.runs.spec(event.run_id).labeling
    needed = critiques_to_ask(judged, n=rule.n, k=rule.k)
    begin = first_critiques(n=rule.n, k=rule.k)
    for request in _requests(event, begin, needed, tools):
        if request.trigger == event.index:
            for index in range(begin, request.up_to):
                yield ProofWritten(
                    run_id=event.run_id,
                    proof_id=event.proof_id,
                    index=index,
                    verifier_version=proof.verifier_version,
                )
        begin = request.up_to


def _requests(
    event: ReviewJudged, begin: int, needed: int, tools: Tools
) -> Iterator[CritiqueRequest]:
    """All requests for critiques of the proof, in order, the last of them for at least `needed`."""
    stored = list(tools.store.list(keys.critique_requests(event.run_id, event.proof_id)))
    requests = [get_record(tools.store, key, CritiqueRequest) for key in stored]
    yield from requests
    up_to = requests[-1].up_to if requests else begin
    for number in itertools.count(len(requests)):
        if up_to >= needed:
            return
        key = keys.critique_request(event.run_id, event.proof_id, number)
        new = CritiqueRequest(up_to=needed, trigger=event.index)
        request = put_record(tools.store, key, new)  # another process may have been first
        yield request
        up_to = request.up_to


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
