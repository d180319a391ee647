"""Labels proofs.

Handles `ReviewJudged`: once the stored judgements decide the label, stores it and emits
`ProofLabeled`, exactly once. Until then, emits `ProofWritten` for the critiques that the label
still needs.

A grade given with the proof, or that of an exact checker, takes the place of the rule.

Two replicas that both see the last critique write the same key; the label remembers whose message
decided it, and only that one announces it. Requests for critiques work in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.labeling import Labeling
from proofloop.method.acceptance import decide_by_strength
from proofloop.method.critique_window import critiques_to_ask, first_critiques
from proofloop.method.domains import load_checker
from proofloop.method.label_rule import Decision, decide, decide_by_majority, grade
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofLabeled, ProofWritten, ReviewJudged
from proofloop.schema.ids import SELF_CRITIQUE
from proofloop.schema.records import LABELER, CritiqueRequest, Given, Judgement, Label, Proof
from proofloop.store import find_record, put_record
from proofloop.worker.tools import Tools

UNREADABLE = Decision("unreadable", "unreadable", None, ())
CHECKER = "checker"
"""Who a label of the domain's exact checker is by."""


@dataclass(frozen=True)
class Judged:
    """The judgements of a proof that are stored: of the generator's own critique, if there is one,
    and of the verifier's critiques.
    """

    own: Judgement | None
    critiques: Sequence[Judgement]


def label(event: ReviewJudged, tools: Tools) -> Iterator[Event]:
    """Write the label if it is decided, and announce it if this message decided it; otherwise
    request the critiques that it needs.
    """
    found = find_record(tools.store, keys.label(event.run_id, event.proof_id), Label)
    if found is None:
        proof = tools.runs.proof(event.run_id, event.proof_id)
        decided = yield from _decide_or_ask(event, proof, tools)
        if decided is None:
            return
        found = _keep(decided, tools)
    if found.trigger == event.index:
        yield ProofLabeled.of(found)


def _keep(decided: Label, tools: Tools) -> Label:
    """The label that is stored from now on: another process may have been first."""
    found = put_record(tools.store, keys.label(decided.run_id, decided.proof_id), decided)
    tools.runs.undecided.forget(decided.run_id, decided.proof_id)
    if found is decided:
        tools.metrics.labels.labels(found.outcome, found.kind).inc()
    return found


def _decide_or_ask(
    event: ReviewJudged, proof: Proof, tools: Tools
) -> Generator[ProofWritten, None, Label | None]:
    """The label, if the stored judgements decide it; otherwise ask for more critiques."""
    if proof.verdict.outcome != "valid":
        return _label(event, proof, UNREADABLE, self_quality=0.0)
    spec = tools.runs.spec(event.run_id)
    if proof.given is None and spec.labeling.by == "checker":
        return _label(event, proof, _checked(proof, spec, tools), by=CHECKER)
    judged = _judged(event, tools)
    if proof.given is not None and (proof.given.is_analysis or proof.given.score is not None):
        return _graded(event, proof, proof.given, len(judged.critiques), spec)
    decision = _by_rule(judged.critiques, spec.labeling)
    if decision is None:
        if spec.stops_when_decided:
            yield from _ask_for_more(event, proof, judged.critiques, tools)
        return None
    is_early = len(judged.critiques) < spec.labeling.n and not spec.stops_when_decided
    needs_own = proof.given is None and not spec.searches_by_need
    if is_early or (needs_own and judged.own is None):
        return None
    return _label(event, proof, decision, judged.own.quality if judged.own else 0.0)


def _by_rule(judged: Sequence[Judgement], rule: Labeling) -> Decision | None:
    """The label by the rule that the run names."""
    name = rule.rule_in_force
    if name == "quorum":
        return decide(judged, n=rule.n, k=rule.k)
    if name == "majority":
        return decide_by_majority(judged, n=rule.n)
    return decide_by_strength(judged, rule=name, n=rule.n, accept_at=rule.accept_at)


def _graded(
    event: ReviewJudged, proof: Proof, given: Given, judged: int, spec: RunSpec
) -> Label | None:
    """The label of a given proof or analysis, once everything about it is judged. An analysis is
    accepted if its quality is 1; it has no score, which would be the proof's.
    """
    if judged < (1 if given.is_analysis else spec.labeling.n):
        return None
    decision = grade(given.quality if given.is_analysis else given.score)
    if given.is_analysis:
        decision = replace(decision, score=None)
    return _label(event, proof, decision, by=given.by or LABELER)


def _checked(proof: Proof, spec: RunSpec, tools: Tools) -> Decision:
    """The grade of the domain's exact checker; undecided if it cannot tell."""
    assert spec.problems.checked_by is not None
    checker = load_checker(spec.problems.checked_by)
    question = tools.runs.problem(proof.run_id, proof.problem_id).question
    finding = checker.check_proof(question, proof.solution)
    return grade(finding.score if finding else None)


def _judged(event: ReviewJudged, tools: Tools) -> Judged:
    found = tools.runs.undecided.judgements(event.run_id, event.proof_id, event.index)
    own = next((judgement for judgement in found if judgement.index == SELF_CRITIQUE), None)
    return Judged(own, [judgement for judgement in found if judgement.index != SELF_CRITIQUE])


def _ask_for_more(
    event: ReviewJudged, proof: Proof, judged: Sequence[Judgement], tools: Tools
) -> Iterator[ProofWritten]:
    """Request the critiques that the label needs now, and again those that an earlier delivery of
    this message requested.
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
    requests = tools.runs.undecided.requests(event.run_id, event.proof_id)
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


def _label(
    event: ReviewJudged,
    proof: Proof,
    decision: Decision,
    self_quality: float | None = 0.0,
    by: str = LABELER,
) -> Label:
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
        by=by,
    )
