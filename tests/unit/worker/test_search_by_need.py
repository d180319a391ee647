"""The roles in a search by need: each does what the run driver requests, and nothing for a proof
that the search can do without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proofloop.schema import keys
from proofloop.schema.events import (
    ProblemPosed,
    ProofLabeled,
    ProofReviewed,
    ProofWritten,
    ReviewJudged,
)
from proofloop.schema.records import Critique, Proof
from proofloop.store import get_record, put_record
from proofloop.worker.tools import Tools
from proofloop_generator.prove import prove
from proofloop_labeler.label import label as label_proof
from proofloop_meta_verifier.judge import judge
from proofloop_verifier.review import review
from tests.builders import (
    PROOF,
    RUN,
    CountingEngine,
    critique,
    judgement,
    label,
    proof,
    runspec,
    valid,
    workplace,
)

POSED = ProblemPosed(run_id=RUN, problem_id="p1", proof_id=PROOF, group="p1")
WRITTEN = ProofWritten(run_id=RUN, proof_id=PROOF, index=0, verifier_version="v-1")


def reviewed(index: int) -> ProofReviewed:
    return ProofReviewed(run_id=RUN, proof_id=PROOF, index=index)


def searching(root: Path) -> Tools:
    return workplace(root, CountingEngine(), runspec(search={"rounds": 1}))


def test_the_generator_requests_the_first_critique_alone(tmp_path: Path) -> None:
    tools = searching(tmp_path)
    [event] = prove(POSED, tools)
    version = get_record(tools.store, keys.proof(RUN, PROOF), Proof).verifier_version
    assert event == WRITTEN.model_copy(update={"verifier_version": version})


def test_the_verifier_requests_no_judgement(tmp_path: Path) -> None:
    tools = searching(tmp_path)
    put_record(tools.store, keys.proof(RUN, PROOF), proof())
    assert list(review(WRITTEN, tools)) == []
    assert get_record(tools.store, keys.critique(RUN, PROOF, 0), Critique).index == 0


def test_the_meta_verifier_judges_what_is_requested(tmp_path: Path) -> None:
    tools = searching(tmp_path)
    put_record(tools.store, keys.proof(RUN, PROOF), proof())
    put_record(tools.store, keys.critique(RUN, PROOF, 0), critique(0, valid(0.0)))
    expected = ReviewJudged(run_id=RUN, proof_id=PROOF, index=0)
    assert list(judge(reviewed(0), tools)) == [expected]
    assert tools.store.exists(keys.judgement(RUN, PROOF, 0))


def test_the_labeler_needs_no_judgement_of_the_own_critique(tmp_path: Path) -> None:
    tools = searching(tmp_path)
    n = tools.runs.spec(RUN).labeling.n
    put_record(tools.store, keys.proof(RUN, PROOF), proof())
    for index in range(n):
        put_record(tools.store, keys.judgement(RUN, PROOF, index), judgement(index))
    [event] = label_proof(ReviewJudged(run_id=RUN, proof_id=PROOF, index=n - 1), tools)
    assert isinstance(event, ProofLabeled)
    assert (event.outcome, event.solved) == ("accepted", True)


@pytest.mark.parametrize(
    ("handler", "event"),
    [(prove, POSED), (review, WRITTEN), (judge, reviewed(0)), (judge, reviewed(-1))],
)
def test_no_role_works_on_an_outranked_proof(tmp_path: Path, handler: Any, event: Any) -> None:
    tools = searching(tmp_path)
    outranked = label(None, outcome="outranked", kind="outranked")
    put_record(tools.store, keys.label(RUN, PROOF), outranked)
    assert list(handler(event, tools)) == []
