"""The four light roles, each handler called directly over a real store: what it keeps, what it
says, what it spends.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from proofloop.bus import ACK, Delivery, LocalBus, Outcome
from proofloop.engine.base import (
    Call,
    EndedCall,
    Engine,
    FinishReason,
    Generation,
    GenerationRequest,
)
from proofloop.errors import (
    AccessRefused,
    CallRefused,
    ConfigError,
    CorruptObject,
    EngineError,
    InvalidKey,
    NotFound,
    Reject,
    Retry,
    StoreError,
)
from proofloop.runs.answers import meta_critiques_of
from proofloop.runs.costs import Spent, costs
from proofloop.runs.create import create_run
from proofloop.runs.model_registry import put_in_service
from proofloop.schema import keys
from proofloop.schema.events import (
    Event,
    ParentProof,
    ProblemPosed,
    ProofLabeled,
    ProofReviewed,
    ProofWritten,
    ReviewJudged,
    encode,
)
from proofloop.schema.records import (
    MAX_RAW_CHARS,
    Critique,
    Given,
    Judgement,
    Label,
    MetaCritique,
    Proof,
    RawAnswer,
    Record,
    Score,
    Tokens,
    Verdict,
)
from proofloop.store import LocalStore, find_record, get_record, put_record
from proofloop.worker.calls.early_warning import EarlyWarning
from proofloop.worker.calls.failing_calls import FailingCalls, FailureTimes
from proofloop.worker.calls.unusable_engine import StopProcess
from proofloop.worker.roles import Role
from proofloop.worker.runtime import Worker
from proofloop.worker.shutdown import Shutdown
from proofloop.worker.tools import Tools
from proofloop_generator.prove import prove
from proofloop_labeler.label import label as label_proof
from proofloop_meta_verifier.judge import judge, summarise
from proofloop_verifier.review import review
from tests.builders import (
    MALFORMED,
    PROOF,
    PROVENANCE,
    RUN,
    CountingEngine,
    answer,
    critique,
    evaluation,
    judgement,
    label,
    proof,
    runspec,
    valid,
    workplace,
)
from tests.waiting import wait_until

POSED = ProblemPosed(run_id=RUN, problem_id="p1", proof_id=PROOF, group="p1")


def written(index: int = 0) -> ProofWritten:
    return ProofWritten(run_id=RUN, proof_id=PROOF, index=index, verifier_version="v-1")


def reviewed(index: int = 0) -> ProofReviewed:
    return ProofReviewed(run_id=RUN, proof_id=PROOF, index=index)


def judged(index: int = 0) -> ReviewJudged:
    return ReviewJudged(run_id=RUN, proof_id=PROOF, index=index)


class SayingEngine:
    """Says one thing after the other, the last one for ever, and keeps what it was asked."""

    def __init__(self, *texts: str) -> None:
        self._texts, self.asked = texts, list[str]()

    def submit(self, request: GenerationRequest) -> Call:
        text = self._texts[min(len(self.asked), len(self._texts) - 1)]
        self.asked.append(request.messages[0].content)
        return EndedCall(Generation(text, "stop", 10, 20, 0.5, request.model))

    def close(self) -> None: ...


class WritingEngine:
    """Writes the same thing whatever it is asked."""

    def __init__(self, written: Generation) -> None:
        self._written = written

    def submit(self, request: GenerationRequest) -> Call:
        return EndedCall(self._written)

    def close(self) -> None: ...


class RefusingEngine:
    """Takes no call about `topic`; by default none at all."""

    def __init__(self, error: EngineError, topic: str = "") -> None:
        self._error, self._topic = error, topic

    def submit(self, request: GenerationRequest) -> Call:
        if self._topic in request.messages[0].content:
            raise self._error
        return EndedCall(Generation("", "length", 10, 20, 0.5, request.model))

    def close(self) -> None: ...


def tools_with(tmp_path: Path, engine: Engine, *records: Record, **sections: Any) -> Tools:
    """A workplace whose store holds these records of the proof."""
    tools = workplace(tmp_path, engine, runspec(**sections))
    for record in records:
        put_record(tools.store, key_of(record), record)
    return tools


def key_of(record: Record) -> str:
    match record:
        case Proof():
            return keys.proof(RUN, record.id)
        case Critique():
            return keys.critique(RUN, PROOF, record.index)
        case Judgement():
            return keys.judgement(RUN, PROOF, record.index)
        case Label():
            return keys.label(RUN, PROOF)
    raise TypeError(record)


def proof_in(tools: Tools) -> Proof:
    return get_record(tools.store, keys.proof(RUN, PROOF), Proof)


def critique_in(tools: Tools, index: int = 0) -> Critique:
    return get_record(tools.store, keys.critique(RUN, PROOF, index), Critique)


def judgement_in(tools: Tools, index: int = 0) -> Judgement:
    return get_record(tools.store, keys.judgement(RUN, PROOF, index), Judgement)


def label_in(tools: Tools) -> Label:
    return get_record(tools.store, keys.label(RUN, PROOF), Label)


def metas_of(tools: Tools, index: int = 0) -> list[MetaCritique]:
    return list(meta_critiques_of(tools.store, RUN, PROOF, index).values())


def check_second_run_asks_nothing(
    handler: Callable[[Any, Tools], Iterator[Event]], event: Event, tools: Tools
) -> None:
    """The handler stores before it yields, and finds what it stored."""
    engine = tools.engine_for(tools.runs.spec(RUN), "verifier")
    assert isinstance(engine, CountingEngine)
    first = list(handler(event, tools))
    asked, kept = len(engine.requests), sorted(tools.store.list(keys.run(RUN)))
    assert asked > 0
    assert list(handler(event, tools)) == first
    assert (len(engine.requests), sorted(tools.store.list(keys.run(RUN)))) == (asked, kept)


# -- generator
# --------------------------------------------------------------------------------------------------


def test_generator_stores_the_proof_before_it_asks_for_reviews(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine())
    events = prove(POSED, tools)
    assert next(events) == reviewed(-1)
    stored = proof_in(tools)
    assert list(events) == [
        ProofWritten(
            run_id=RUN, proof_id=PROOF, index=index, verifier_version=stored.verifier_version
        )
        for index in range(2)
    ]
    assert (stored.id, stored.problem_id, stored.group, stored.verdict.outcome) == (
        PROOF,
        "p1",
        "p1",
        "valid",
    )
    assert stored.provenance.model_version == "m-1"
    assert stored.provenance.completion_tokens > 0


def test_generator_asks_nothing_when_the_proof_is_there(tmp_path: Path) -> None:
    check_second_run_asks_nothing(prove, POSED, tools_with(tmp_path, CountingEngine()))


@pytest.mark.parametrize(
    ("setting", "outcome"), [("malformed_share", "malformed"), ("truncated_share", "truncated")]
)
def test_a_proof_that_cannot_be_read_goes_straight_to_the_labeler(
    tmp_path: Path, setting: str, outcome: str
) -> None:
    tools = tools_with(tmp_path, CountingEngine(**{setting: 1.0}))
    assert list(prove(POSED, tools)) == [judged(-1)]
    stored = proof_in(tools)
    assert (stored.verdict.outcome, stored.verdict.score) == (outcome, None)
    assert stored.provenance.finish_reason == ("length" if outcome == "truncated" else "stop")
    expected = label(
        None, outcome="unreadable", kind="unreadable", self_quality=0.0, critiques=(), trigger=-1
    )
    assert list(label_proof(judged(-1), tools)) == [ProofLabeled.of(expected)]
    assert label_in(tools) == expected


def test_the_version_that_reviews_a_proof_is_chosen_once_for_all_its_critiques(
    tmp_path: Path,
) -> None:
    tools = tools_with(tmp_path, CountingEngine())
    put_in_service(tools.store, RUN, "verifier", "v-2")
    assert {
        event.verifier_version for event in prove(POSED, tools) if isinstance(event, ProofWritten)
    } == {"v-2"}
    put_in_service(tools.store, RUN, "verifier", "v-3")
    later = Tools(tools.store, tools.engine_for)
    assert {
        event.verifier_version for event in prove(POSED, later) if isinstance(event, ProofWritten)
    } == {"v-2"}


def test_a_refinement_shows_its_parents_and_the_chosen_critiques(tmp_path: Path) -> None:
    engine = CountingEngine()
    parent = proof(valid(0.5), self_analysis="MY OWN DOUBTS")
    tools = tools_with(tmp_path, engine, parent, critique(3, valid(0.0), "A REAL GAP"))
    posed = ProblemPosed(
        run_id=RUN,
        problem_id="p1",
        proof_id="p1-r1",
        group="p1",
        parents=(ParentProof(proof_id=PROOF, critiques=(-1, 3)),),
    )
    list(prove(posed, tools))
    text = engine.requests[0].messages[0].content
    assert all(
        part in text for part in ("Prove p1.", parent.solution, "MY OWN DOUBTS", "A REAL GAP")
    )
    assert get_record(tools.store, keys.proof(RUN, "p1-r1"), Proof).parents == (PROOF,)


def attempts_with(tools: Tools) -> list[ProblemPosed]:
    """Every attempt at the proof, each led to by the one before."""
    posed = [POSED]
    while isinstance(after := next(prove(posed[-1], tools)), ProblemPosed):
        posed.append(after)
    return posed


def test_a_proof_is_refined_until_the_generator_finds_no_fault_with_it(tmp_path: Path) -> None:
    engine = SayingEngine(
        *(
            answer(f"Try {number}.", score, f"Doubt {number}.")
            for number, score in enumerate(("0", "0.5", "1"))
        )
    )
    tools = tools_with(tmp_path, engine, refinement={"iterations": 8})
    assert [event.attempt for event in attempts_with(tools)] == [0, 1, 2]
    stored = proof_in(tools)
    assert (stored.solution, stored.verdict) == ("Try 2.", valid(1.0))
    assert [("Try 0." in text, "Doubt 1." in text) for text in engine.asked] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_refinement_ends_with_the_last_attempt_whatever_it_is(tmp_path: Path) -> None:
    engine = SayingEngine(answer("Try 0.", "0"), answer("Try 1.", "0"))
    tools = tools_with(tmp_path, engine, refinement={"iterations": 2})
    assert len(attempts_with(tools)) == 2
    assert proof_in(tools).verdict == valid(0.0)


def test_refinement_goes_on_from_the_last_readable_attempt(tmp_path: Path) -> None:
    engine = SayingEngine(answer("Try 0.", "0"), "no proof at all", answer("Try 2.", "1"))
    tools = tools_with(tmp_path, engine, refinement={"iterations": 3})
    attempts_with(tools)
    assert "Try 0." in engine.asked[2]


@pytest.mark.parametrize(
    ("iterations", "name", "key"),
    [
        (1, f"{PROOF}", keys.proof(RUN, PROOF)),
        (2, f"{PROOF}/attempt-0", keys.attempt(RUN, PROOF, 0)),
        (64, f"{PROOF}/attempt-0", keys.attempt(RUN, PROOF, 0)),
    ],
)
def test_an_early_warning_names_an_attempt_as_it_is_stored(
    tmp_path: Path, iterations: int, name: str, key: str
) -> None:
    tools = tools_with(
        tmp_path, SayingEngine(*["no proof at all"] * 10), refinement={"iterations": iterations}
    )
    posed = [
        POSED,
        *(POSED.model_copy(update={"proof_id": f"p1-{number:03d}"}) for number in range(1, 10)),
    ]
    for event in posed:
        list(prove(event, tools))
    warning = get_record(tools.store, keys.early_warning(RUN, "generator"), EarlyWarning)
    assert warning.example == name
    assert get_record(tools.store, key, Proof).verdict.outcome == "malformed"


def test_an_early_warning_names_a_last_attempt_by_its_proof(tmp_path: Path) -> None:
    engine = SayingEngine(
        *[answer("Try.", "0"), "no proof at all"] * 4, "no proof at all", "no proof at all"
    )
    tools = tools_with(tmp_path, engine, refinement={"iterations": 2})
    for number in range(5):
        [second] = prove(POSED.model_copy(update={"proof_id": f"p1-{number:03d}"}), tools)
        list(prove(second, tools))
    assert (
        get_record(tools.store, keys.early_warning(RUN, "generator"), EarlyWarning).example == PROOF
    )
    assert proof_in(tools).verdict.outcome == "malformed"


def test_a_redelivered_attempt_is_not_paid_again(tmp_path: Path) -> None:
    engine = SayingEngine(answer("Try 0.", "0"), answer("Try 1.", "1"))
    tools = tools_with(tmp_path, engine, refinement={"iterations": 2})
    [second] = prove(POSED, tools)
    assert list(prove(POSED, tools)) == [second]
    reviews = list(prove(second, tools))
    # The proof is there: only its reviews are still of use.
    assert list(prove(POSED, tools)) == reviews


def test_an_answer_that_no_record_can_hold_is_data_all_the_same(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, SayingEngine(answer(solution="Half a pair: \ud835.", score="0")))
    assert len(list(prove(POSED, tools))) == 3
    stored = proof_in(tools)
    assert (stored.solution, stored.verdict) == ("Half a pair: ?.", valid(0.0))


def test_an_unreadable_critique_is_requested_once_more_and_both_answers_are_kept(
    tmp_path: Path,
) -> None:
    engine = SayingEngine("I like it.", evaluation("0"), "never asked for")
    tools = tools_with(tmp_path, engine, proof())
    assert list(review(written(), tools)) == [reviewed()]
    stored = critique_in(tools)
    unread = get_record(tools.store, keys.unread_critique(RUN, PROOF, 0), Critique)
    assert (stored.verdict, unread.verdict.outcome) == (valid(0.0), "malformed")
    assert unread.analysis == "I like it."
    assert costs(tools.store, RUN).by_role["verifier"].calls == 2


def test_a_redelivered_message_requests_only_the_second_answer(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, engine := SayingEngine(evaluation("0")), proof())
    unread = critique(0, Verdict(outcome="malformed", score=None))
    put_record(tools.store, keys.unread_critique(RUN, PROOF, 0), unread)
    list(review(written(), tools))
    stored = critique_in(tools)
    assert (stored.verdict, len(engine.asked)) == (valid(0.0), 1)


def test_an_unreadable_critique_stays_where_a_verifier_learns_from_it(tmp_path: Path) -> None:
    engine = SayingEngine("I like it.", evaluation("0"))
    tools = tools_with(
        tmp_path,
        engine,
        proof(),
        labeling={"stop_early": False},
        training={"verifier": {"steps": 1}},
    )
    list(review(written(), tools))
    stored = critique_in(tools)
    assert (stored.verdict.outcome, len(engine.asked)) == ("malformed", 1)


UNREADABLE = "I could not think of a proof."


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_what_a_model_wrote_is_kept_though_it_cannot_be_read(
    tmp_path: Path, reason: FinishReason
) -> None:
    engine = WritingEngine(
        Generation(UNREADABLE, reason, 10, 20, 0.5, "m-1", reasoning="Let me think.")
    )
    tools = tools_with(tmp_path, engine, critique(1, valid(0.0), CLAIMS))
    list(prove(POSED, tools))
    stored = proof_in(tools)
    assert (stored.solution, stored.verdict.score) == ("", None)
    wrote = RawAnswer(text=UNREADABLE, reasoning="Let me think.")
    assert get_record(tools.store, stored.raw_key, RawAnswer) == wrote
    list(review(written(), tools))
    assert critique_in(tools).raw in (
        wrote,
        wrote.model_copy(update={"text": None}),  # its analysis is the same
    )
    list(judge(reviewed(1), tools))
    assert [each.raw and each.raw.reasoning for each in metas_of(tools, 1)] == ["Let me think."] * 3


def test_an_empty_answer_with_reasoning_says_so(tmp_path: Path) -> None:
    engine = WritingEngine(Generation("", "stop", 10, 20, 0.5, "m-1", reasoning="Let me think."))
    tools = tools_with(tmp_path, engine)
    list(prove(POSED, tools))
    verdict = proof_in(tools).verdict
    assert verdict.reason == "the answer is empty: all of it is reasoning, 13 characters"
    assert verdict.cause == "the answer is empty: all of it is reasoning"


def test_what_had_come_of_a_failed_call_is_kept(tmp_path: Path) -> None:
    error = CallRefused("the stream was cut")
    error.partial = "## Solution\n\nLet $n"
    tools = tools_with(tmp_path, RefusingEngine(error, "Prove p1."))
    list(prove(POSED, tools))
    stored = proof_in(tools)
    assert stored.verdict.outcome == "engine_failed"
    assert get_record(tools.store, stored.raw_key, RawAnswer) == RawAnswer(text=error.partial)


def test_a_long_answer_is_kept_without_its_middle() -> None:
    found = RawAnswer.of("a" * MAX_RAW_CHARS + "b" * 10, "short")
    assert found.left_out == 10 and found.reasoning == "short" and found.text is not None
    assert found.text.startswith("a" * 1000) and found.text.endswith("a" * 1000 + "b" * 10)
    assert "10 characters are left out here" in found.text and len(found.text) < MAX_RAW_CHARS + 100


def test_sampled_tokens_are_kept_for_roles_that_are_trained(tmp_path: Path) -> None:
    tools = tools_with(
        tmp_path, CountingEngine(want_tokens=True), training={"generator": {"steps": 1}}
    )
    list(prove(POSED, tools))
    list(review(written(), tools))
    made = proof_in(tools).provenance
    kept = get_record(tools.store, made.tokens_key, Tokens)
    assert (len(kept.prompt_ids), len(kept.completion_ids)) == (
        made.prompt_tokens,
        made.completion_tokens,
    )
    assert critique_in(tools).provenance.tokens_key == ""


# -- verifier
# --------------------------------------------------------------------------------------------------


def test_verifier_stores_its_critique_before_it_yields(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(verifier_noise=0), proof())
    events = review(written(2), tools)
    assert next(events) == reviewed(2)
    stored = critique_in(tools, 2)
    assert (stored.proof_id, stored.index, stored.verdict) == (PROOF, 2, valid(1.0))
    assert stored.provenance.model_version == "v-1"


def test_verifier_asks_nothing_when_the_critique_is_there(tmp_path: Path) -> None:
    check_second_run_asks_nothing(
        review, written(), tools_with(tmp_path, CountingEngine(), proof())
    )


@pytest.mark.parametrize("setting", ["malformed_share", "truncated_share"])
def test_a_critique_that_cannot_be_read_is_kept_and_flows_on(tmp_path: Path, setting: str) -> None:
    tools = tools_with(tmp_path, CountingEngine(**{setting: 1.0}), proof())
    assert list(review(written(), tools)) == [reviewed()]
    assert critique_in(tools).verdict.score is None


@pytest.mark.parametrize(("reading", "score"), [("lenient", 0.5), ("strict", None), (None, 0.5)])
def test_every_role_reads_answers_as_the_run_says(
    tmp_path: Path, reading: str | None, score: float | None
) -> None:
    said = "### Evaluation\n\nStep 2 skips a case.\n\n**Score:** 0.5"
    engine = SayingEngine(f"### Solution\n\nTrivial.\n\n### Self Evaluation\n\n{said}", said)
    tools = tools_with(tmp_path, engine, reading=reading, labeling={"m": 1})
    list(prove(POSED, tools))
    list(review(written(), tools))
    assert proof_in(tools).verdict.score == score
    assert critique_in(tools).verdict.score == score
    if score is not None:
        list(judge(reviewed(), tools))
        assert [each.verdict.score for each in metas_of(tools)] == [score]


def test_verifier_skips_a_proof_that_is_decided(tmp_path: Path) -> None:
    engine = CountingEngine()
    assert list(review(written(), tools_with(tmp_path, engine, proof(), label()))) == []
    assert engine.requests == []


def test_verifier_reviews_a_decided_proof_all_the_same_without_early_stop(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof(), label(), labeling={"stop_early": False})
    assert list(review(written(), tools)) == [reviewed()]


def test_a_running_critique_is_cancelled_in_the_engine_when_its_proof_is_decided(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(latency_s=60, latency_sigma=0, max_concurrency=1)
    tools = tools_with(tmp_path, engine, proof())
    put_label = threading.Timer(
        0.1, lambda: put_record(tools.store, keys.label(RUN, PROOF), label())
    )
    put_label.start()
    assert list(review(written(), tools)) == []
    assert list(tools.store.list(keys.critiques(RUN, PROOF))) == []
    put_label.join()
    later = engine.submit(engine.requests[0])
    later.cancel()
    # It had the only slot at once, or it would have waited.
    assert later.result(1).completion_tokens == 0
    engine.close()


def test_each_critique_of_a_proof_has_its_own_seed_and_the_same_one_each_time(
    tmp_path: Path,
) -> None:
    def seeds(folder: Path, run: str) -> list[int]:
        engine = CountingEngine()
        tools = (
            tools_with(folder, engine, proof(), name=run)
            if run == RUN
            else workplace(folder, engine, runspec(name=run))
        )
        put_record(tools.store, keys.proof(run, PROOF), proof())
        for index in range(3):
            list(
                review(
                    ProofWritten(run_id=run, proof_id=PROOF, index=index, verifier_version="v-1"),
                    tools,
                )
            )
        return [request.seed for request in engine.requests]

    first = seeds(tmp_path / "a", RUN)
    assert len(set(first)) == 3
    assert seeds(tmp_path / "b", RUN) == first
    assert not set(seeds(tmp_path / "c", "r2")) & set(first)


# -- meta-verifier
# --------------------------------------------------------------------------------------------------

FLAWED = proof(solution="Simulated proof 8f3a of quality 0.")
CLAIMS = "Simulated analysis claims quality 0.\n" + evaluation("0")
CLAIMED = critique(0, valid(0.0), CLAIMS)


def test_meta_verifier_stores_assessments_and_judgement_before_it_yields(tmp_path: Path) -> None:
    tools = tools_with(
        tmp_path, CountingEngine(verifier_noise=0), FLAWED, critique(2, valid(0.0), CLAIMS)
    )
    events = judge(reviewed(2), tools)
    assert next(events) == judged(2)
    stored = judgement_in(tools, 2)
    assert stored == judgement(2, 0.0, confirmed=True, quality=1.0)
    assert [one.verdict for one in metas_of(tools, 2)] == [valid(1.0)] * 2


def test_meta_verifier_asks_nothing_when_the_judgement_is_there(tmp_path: Path) -> None:
    check_second_run_asks_nothing(
        judge, reviewed(), tools_with(tmp_path, CountingEngine(), FLAWED, CLAIMED)
    )


def test_meta_verifier_asks_nothing_again_when_it_was_killed_before_the_judgement(
    tmp_path: Path,
) -> None:
    engine = CountingEngine()
    tools = tools_with(tmp_path, engine, FLAWED, CLAIMED)
    list(judge(reviewed(), tools))
    asked, before = len(engine.requests), tools.store.get(keys.judgement(RUN, PROOF, 0))
    tools.store.path(keys.judgement(RUN, PROOF, 0)).unlink()  # type: ignore[attr-defined]
    assert list(judge(reviewed(), tools)) == [judged()]
    assert (len(engine.requests), tools.store.get(keys.judgement(RUN, PROOF, 0))) == (asked, before)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(valid(1.0), judgement(0, 1.0, quality=1.0)), (MALFORMED, judgement(0, None, quality=0.0))],
)
def test_a_critique_that_claims_nothing_costs_nothing(
    tmp_path: Path, verdict: Verdict, expected: Judgement
) -> None:
    engine = CountingEngine()
    tools = tools_with(tmp_path, engine, FLAWED, critique(0, verdict))
    assert list(judge(reviewed(), tools)) == [judged()]
    assert judgement_in(tools) == expected
    assert engine.requests == []


TRAINS_VERIFIER = {"training": {"verifier": {"steps": 1}}, "reward": {"meta": True}}


@pytest.mark.parametrize(
    ("given", "sections", "asked"),
    [
        (1.0, TRAINS_VERIFIER, 0),
        (0.5, TRAINS_VERIFIER, 3),
        (None, TRAINS_VERIFIER, 3),
        (1.0, {}, 3),
    ],
    ids=["R_score is 0", "R_score is 0.5", "no grade", "no training"],
)
def test_in_training_a_critique_that_earns_nothing_costs_nothing(
    tmp_path: Path, given: Score | None, sections: dict[str, Any], asked: int
) -> None:
    engine = CountingEngine()
    graded = proof(given=Given(score=given, by="expert"))
    labeling = {"m": 3, "stop_early": False}
    tools = tools_with(tmp_path, engine, graded, CLAIMED, labeling=labeling, **sections)
    assert list(judge(reviewed(), tools)) == [judged()]
    assert len(engine.requests) == asked
    quality = judgement_in(tools).quality
    assert (quality is None) == (asked == 0)


def test_a_majority_is_asked_first_and_the_rest_only_if_it_disagrees(tmp_path: Path) -> None:
    asked = set()
    for number in range(12):
        engine = CountingEngine(verifier_noise=0.5, seed=number)
        tools = tools_with(tmp_path / str(number), engine, proof(), CLAIMED, labeling={"m": 5})
        list(judge(reviewed(), tools))
        confirms = [(one.verdict.score or 0.0) >= 0.5 for one in metas_of(tools)]
        assert len(confirms) == (3 if len(set(confirms[:3])) == 1 else 5)
        assert judgement_in(tools).confirmed == (2 * sum(confirms) > 5)
        assert engine.names() == [
            f"meta_verifier:{PROOF}:meta-0-{one}" for one in range(len(confirms))
        ]
        asked.add(len(confirms))
    assert asked == {3, 5}


class FailingFor:
    """Answers all calls but the one of this name, or none for "", while `fails` is set."""

    def __init__(self, name: str, is_load: bool = False) -> None:
        self.name = name
        self.engine = CountingEngine(verifier_noise=0)
        self.fails = True
        self.is_load = is_load

    def submit(self, request: GenerationRequest) -> Call:
        call = self.engine.submit(request)
        if self.fails and (not self.name or f":{self.name}:" in request.id):
            raise EngineError("status 503", retryable=True, is_load=self.is_load)
        return call

    def close(self) -> None: ...


def test_a_meta_critique_that_must_be_asked_again_costs_its_siblings_nothing(
    tmp_path: Path,
) -> None:
    engine = FailingFor("meta-0-1")
    tools = tools_with(tmp_path, engine, FLAWED, CLAIMED, labeling={"stop_early": False})
    with pytest.raises(Retry, match="503"):
        list(judge(reviewed(), tools))
    assert sorted(meta_critiques_of(tools.store, RUN, PROOF, 0)) == [0, 2]
    engine.fails = False
    assert list(judge(reviewed(), tools)) == [judged()]
    assert Counter(engine.engine.names()) == {
        f"meta_verifier:{PROOF}:meta-0-{n}": 1 + (n == 1) for n in range(3)
    }


def test_a_meta_critique_is_stored_while_its_siblings_still_run(tmp_path: Path) -> None:
    slow = threading.Event()
    engine = HoldingEngine("meta-0-0", slow)
    tools = tools_with(tmp_path, engine, FLAWED, CLAIMED, labeling={"stop_early": False})
    with ThreadPoolExecutor(1) as pool:
        handled = pool.submit(lambda: list(judge(reviewed(), tools)))
        wait_until(lambda: len(metas_of(tools)) == 2, 20)
        stored = sorted(meta_critiques_of(tools.store, RUN, PROOF, 0))
        slow.set()
        assert (stored, handled.result(20)) == ([1, 2], [judged()])


class HoldingEngine(CountingEngine):
    """Holds the answer to the call of this name back until it may come."""

    def __init__(self, name: str, may_come: threading.Event) -> None:
        super().__init__(verifier_noise=0)
        self._name, self._may_come = name, may_come

    def submit(self, request: GenerationRequest) -> Call:
        call = super().submit(request)
        return HeldCall(call, self._may_come) if f":{self._name}:" in request.id else call


@dataclass
class HeldCall:
    call: Call
    may_come: threading.Event

    def result(self, timeout_s: float | None = None) -> Generation:
        if not self.may_come.wait(timeout_s):
            raise TimeoutError
        return self.call.result(timeout_s)

    def when_done(self, callback: Callable[[], None]) -> None:
        def wait() -> None:
            self.may_come.wait()
            self.call.when_done(callback)

        threading.Thread(target=wait, daemon=True).start()

    def cancel(self) -> None:
        self.call.cancel()


def test_all_m_are_asked_without_early_stop(tmp_path: Path) -> None:
    engine = CountingEngine(verifier_noise=0)
    tools = tools_with(tmp_path, engine, FLAWED, CLAIMED, labeling={"stop_early": False})
    list(judge(reviewed(), tools))
    assert len(engine.requests) == 3


def test_meta_verifier_skips_a_decided_proof_but_judges_the_self_critique(tmp_path: Path) -> None:
    engine = CountingEngine(verifier_noise=0)
    own = proof(valid(0.0), solution=FLAWED.solution, self_analysis=CLAIMS)
    tools = tools_with(tmp_path, engine, own, CLAIMED, label())
    assert list(judge(reviewed(0), tools)) == []
    assert list(judge(reviewed(-1), tools)) == [judged(-1)]
    assert engine.names() == [f"meta_verifier:{PROOF}:meta-self-{number}" for number in range(3)]
    assert judgement_in(tools, -1) == judgement(-1, 0.0, True, 1.0)


def assessed(*scores: float | None) -> list[MetaCritique]:
    verdicts = [MALFORMED if score is None else valid(score) for score in scores]
    return [
        MetaCritique(analysis="", verdict=verdict, provenance=PROVENANCE) for verdict in verdicts
    ]


@pytest.mark.parametrize(
    ("scores", "confirm_at", "confirmed", "quality"),
    [
        ((1.0, 1.0, 0.0), 0.5, True, 2 / 3),
        ((0.5, 0.5, 0.0), 0.5, True, 1 / 3),
        ((0.5, 0.5, 0.0), 1.0, False, 1 / 3),
        ((1.0, 1.0, None), 0.5, True, 1.0),
        ((0.0, 0.0, None), 0.5, False, 0.0),
        ((1.0, None, None), 0.5, None, 1.0),
        ((1.0, 0.0, None), 0.5, None, 0.5),
        ((None, None, None), 0.5, None, None),
    ],
)
def test_an_assessment_that_cannot_be_read_has_no_vote_and_enters_no_mean(
    scores: tuple[float | None, ...],
    confirm_at: float,
    confirmed: bool | None,
    quality: float | None,
) -> None:
    rule = runspec(labeling={"confirm_at": confirm_at}).labeling
    assert summarise(assessed(*scores), rule, rule.m) == (confirmed, pytest.approx(quality))


# -- labeler
# --------------------------------------------------------------------------------------------------


def test_labeler_waits_until_the_label_is_decided_and_the_self_critique_is_judged(
    tmp_path: Path,
) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof())
    for index in range(4):
        put_record(tools.store, keys.judgement(RUN, PROOF, index), judgement(index))
        found = list(label_proof(judged(index), tools))
        assert all(isinstance(event, ProofWritten) for event in found)
    put_record(tools.store, keys.judgement(RUN, PROOF, -1), judgement(-1, 0.5, False, 0.25))
    expected = label(self_quality=0.25, critiques=(0, 1, 2, 3), trigger=-1, solved=True)
    assert list(label_proof(judged(-1), tools)) == [ProofLabeled.of(expected)]
    assert label_in(tools) == expected


@pytest.mark.parametrize("search", [{}, {"rounds": 1}])
def test_all_critiques_are_asked_for_at_once_without_early_stop(
    tmp_path: Path, search: dict[str, int]
) -> None:
    rule = {"stop_early": False}
    tools = tools_with(tmp_path, CountingEngine(), proof(), labeling=rule, search=search)
    assert len(list(prove(POSED, tools))) == 1 + 4
    put_record(tools.store, keys.judgement(RUN, PROOF, 0), judgement(0, 0.0, True))
    assert list(label_proof(judged(0), tools)) == []


def asked_by(tools: Tools, index: int) -> list[int]:
    """The critiques that the labeler asks for when this judgement comes."""
    events = list(label_proof(judged(index), tools))
    assert all(isinstance(event, ProofWritten) for event in events)
    return [event.index for event in events if isinstance(event, ProofWritten)]


def test_the_labeler_asks_for_the_critiques_that_the_label_needs(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof(), judgement(-1), labeling=BIG)
    put_record(tools.store, keys.judgement(RUN, PROOF, 0), judgement(0, 0.0, True))
    assert asked_by(tools, 0) == []  # the other two of the first three may decide
    put_record(tools.store, keys.judgement(RUN, PROOF, 1), judgement(1))
    assert asked_by(tools, 1) == [3]
    put_record(tools.store, keys.judgement(RUN, PROOF, 2), judgement(2))
    assert asked_by(tools, 2) == [4, 5]


def test_a_redelivered_judgement_asks_again_for_what_it_asked_before(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof(), judgement(-1), labeling=BIG)
    for index in (0, 1, 2):
        put_record(tools.store, keys.judgement(RUN, PROOF, index), judgement(index, 0.0, False))
    assert asked_by(tools, 2) == list(range(3, 16))
    assert asked_by(tools, 0) == asked_by(tools, 1) == []
    assert asked_by(tools, 2) == list(range(3, 16))


def test_two_labelers_never_ask_for_the_same_critique(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof(), judgement(-1), labeling=BIG)
    put_record(tools.store, keys.judgement(RUN, PROOF, 0), judgement(0))
    put_record(tools.store, keys.judgement(RUN, PROOF, 1), judgement(1))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda index: asked_by(tools, index), (0, 1)))
    assert sorted(index for asked in found for index in asked) == [3, 4]


BIG = {"n": 16, "k": 3}
REJECTED = (judgement(-1), judgement(0, 0.0, True), judgement(2, 0.0, True))


def test_labeler_decides_early_when_nothing_can_change_the_label(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof(), *REJECTED)
    expected = label(0.0, outcome="rejected", kind="rejected_upheld", critiques=(0, 2), trigger=2)
    assert list(label_proof(judged(2), tools)) == [ProofLabeled.of(expected)]
    assert label_in(tools) == expected


def test_labeler_waits_for_all_without_early_stop(tmp_path: Path) -> None:
    tools = tools_with(
        tmp_path, CountingEngine(), proof(), *REJECTED, labeling={"stop_early": False}
    )
    assert list(label_proof(judged(2), tools)) == []
    for index in (1, 3):
        put_record(tools.store, keys.judgement(RUN, PROOF, index), judgement(index))
    assert len(list(label_proof(judged(1), tools))) == 1


def test_only_the_message_that_decided_announces_and_it_does_so_each_time(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine(), proof(), *REJECTED)
    first = list(label_proof(judged(2), tools))
    assert len(first) == 1
    assert [list(label_proof(judged(index), tools)) for index in (-1, 0, 1, 3)] == [[], [], [], []]
    assert list(label_proof(judged(2), tools)) == first


def test_racing_labelers_announce_a_label_once(tmp_path: Path) -> None:
    for turn in range(25):
        tools = tools_with(tmp_path / str(turn), CountingEngine(), proof(), *REJECTED)
        gate = threading.Barrier(3)

        def announce(
            index: int, store: LocalStore = tools.store, gate: threading.Barrier = gate
        ) -> list[Event]:  # type: ignore[assignment]
            replica = Tools(store, engine_for=lambda *_: pytest.fail("a labeler asks no engine"))
            gate.wait()
            return list(label_proof(judged(index), replica))

        with ThreadPoolExecutor(3) as pool:
            announced = [event for events in pool.map(announce, (-1, 0, 2)) for event in events]
        assert announced == [ProofLabeled.of(label_in(tools))]


# -- what goes wrong
# --------------------------------------------------------------------------------------------------

HANDLERS = [(prove, POSED), (review, written()), (judge, reviewed(0))]
NEEDED = {prove: [], review: [FLAWED], judge: [FLAWED, CLAIMED]}
"""The records that a handler reads."""


@pytest.mark.parametrize(("handler", "event"), HANDLERS)
@pytest.mark.parametrize(
    "engine",
    [CountingEngine(failure_share=1.0), RefusingEngine(EngineError("closed", retryable=True))],
    ids=["fails", "refuses"],
)
def test_an_engine_that_is_away_means_later_and_nothing_is_stored(
    tmp_path: Path, handler: Any, event: Event, engine: Engine
) -> None:
    tools = tools_with(tmp_path, engine, *NEEDED[handler])
    before = list(tools.store.list(keys.run(RUN)))
    with pytest.raises(Retry) as caught:
        list(handler(event, tools))
    assert caught.value.after_s > 0
    assert list(tools.store.list(keys.run(RUN))) == before


@pytest.mark.parametrize(
    ("asked_s", "after_s"), [(None, 2.0), (0.5, 2.0), (120.0, 120.0), (1e9, 300.0)]
)
def test_a_message_waits_as_long_as_the_engine_asks_for(
    tmp_path: Path, asked_s: float | None, after_s: float
) -> None:
    tools = tools_with(
        tmp_path, RefusingEngine(EngineError("slow down", retryable=True, after_s=asked_s))
    )
    with pytest.raises(Retry) as caught:
        list(prove(POSED, tools))
    assert caught.value.after_s == after_s


def test_an_engine_that_stays_away_is_warned_of_now_and_then(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, RefusingEngine(EngineError("no route to gpu-7", retryable=True)))
    tools.health.failing = FailingCalls(FailureTimes(silence_s=0.2))
    began = time.monotonic()
    with structlog.testing.capture_logs() as lines:
        while (
            sum(line["log_level"] == "warning" for line in lines) < 2
            and time.monotonic() < began + 60
        ):
            with pytest.raises(Retry):
                list(prove(POSED, tools))
    expected = {"engine": "simulated", "role": "generator", "reason": "no route to gpu-7"}
    warnings = [line for line in lines if line["log_level"] == "warning"]
    since = warnings[0].pop("since")
    assert warnings[0] == {**expected, "event": "engine_away", "log_level": "warning"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, for \d+ s", since)
    assert len(warnings) == 2 <= (time.monotonic() - began) / 0.2


def failing_rounds(tools: Tools, answered_between: bool, rounds: int) -> list[float]:
    """How long critique 0 must wait after each round, until it is stored; another one is answered
    before each.
    """
    waits = []
    for number in range(1, rounds + 1):
        if answered_between or number == 1:
            list(review(written(number), tools))
        try:
            list(review(written(0), tools))
        except Retry as wish:
            waits.append(wish.after_s)
    return waits


def test_a_call_that_fails_while_others_are_answered_is_given_up_after_growing_waits(
    tmp_path: Path,
) -> None:
    engine = FailingFor("critique-0")
    tools = tools_with(tmp_path, engine, FLAWED, labeling={"n": 8})
    assert failing_rounds(tools, answered_between=True, rounds=6) == [2.0, 4.0, 8.0, 16.0]
    found = critique_in(tools).verdict
    assert found.outcome == "engine_failed"
    assert (
        found.reason == "status 503; in 5 rounds, while other calls of the verifier were answered"
    )
    assert Counter(engine.engine.names())[f"verifier:{PROOF}:critique-0"] == 5


@pytest.mark.parametrize(("longest_s", "rounds"), [(86400.0, 8), (0.0001, 1)])
def test_a_call_that_a_busy_server_refuses_is_given_up_after_a_day_only(
    tmp_path: Path, longest_s: float, rounds: int
) -> None:
    tools = tools_with(tmp_path, FailingFor("critique-0", is_load=True), FLAWED, labeling={"n": 16})
    tools.health.failing = FailingCalls(FailureTimes(longest_busy_s=longest_s))
    assert (
        failing_rounds(tools, answered_between=True, rounds=rounds + 1)[:rounds] == [2.0] * rounds
    )
    stored = find_record(tools.store, keys.critique(RUN, PROOF, 0), Critique)
    assert (stored is not None) == (longest_s < 1)


@pytest.mark.parametrize("is_alive", [True, False])
def test_the_last_call_of_a_role_is_given_up_where_the_engine_answers_a_trial_call(
    tmp_path: Path, is_alive: bool
) -> None:
    engine = FailingFor("critique-0" if is_alive else "")
    tools = tools_with(tmp_path, engine, FLAWED, labeling={"n": 8})
    tools.health.failing = FailingCalls(FailureTimes(tried_s=0.0))
    engine.fails = False
    list(review(written(1), tools))
    engine.fails = True
    waits = (
        failing_rounds(tools, answered_between=False, rounds=6)
        if is_alive
        else failing_alone(tools, rounds=6)
    )
    assert waits == ([2.0, 4.0, 8.0, 16.0] if is_alive else [2.0] * 6)
    assert (
        find_record(tools.store, keys.critique(RUN, PROOF, 0), Critique) is not None
    ) == is_alive


def failing_alone(tools: Tools, rounds: int) -> list[float]:
    waits = []
    for _ in range(rounds):
        with pytest.raises(Retry) as caught:
            list(review(written(0), tools))
        waits.append(caught.value.after_s)
    return waits


@pytest.mark.parametrize("error", [CallRefused("filtered"), EngineError("cut", retryable=True)])
def test_a_failed_call_costs_its_attempts(tmp_path: Path, error: EngineError) -> None:
    error.prompt_tokens, error.completion_tokens, error.engine_seconds = 30, 400, 5.0
    tools = tools_with(tmp_path, RefusingEngine(error, "Prove p1."))
    with suppress(Retry):
        list(prove(POSED, tools))
    assert tools.usage.spent(RUN) == {"generator": Spent(0, 30, 400, 5.0)}
    if (stored := find_record(tools.store, keys.proof(RUN, PROOF), Proof)) is not None:
        made = stored.provenance
        assert (made.prompt_tokens, made.completion_tokens, made.engine_seconds) == (30, 400, 5.0)
    assert (stored is None) == error.retryable


def test_a_call_that_can_never_work_is_data_of_its_own_kind(tmp_path: Path) -> None:
    engine = RefusingEngine(CallRefused("no"), "Prove p1.")
    expected = Verdict(outcome="engine_failed", reason="no")
    tools = tools_with(tmp_path / "a", engine)
    assert list(prove(POSED, tools)) == [judged(-1)]
    assert proof_in(tools).verdict == expected
    tools = tools_with(tmp_path / "b", engine, FLAWED, critique(1, valid(0.0), CLAIMS))
    assert list(review(written(0), tools)) == [reviewed(0)]
    assert critique_in(tools).verdict == expected
    assert list(judge(reviewed(1), tools)) == [judged(1)]
    assert judgement_in(tools, 1) == judgement(1, 0.0, None, None)


@pytest.mark.parametrize("has_one_run", [True, False])
@pytest.mark.parametrize(("handler", "event"), HANDLERS)
def test_a_version_that_refuses_whatever_it_is_asked_fails_no_proof(
    tmp_path: Path, handler: Any, event: Event, has_one_run: bool
) -> None:
    tools = tools_with(
        tmp_path, RefusingEngine(CallRefused("max_tokens is too large")), *NEEDED[handler]
    )
    if has_one_run:
        tools.unusable = StopProcess(tools.shutdown)
    before = list(tools.store.list(keys.run(RUN)))
    with pytest.raises(
        Retry if has_one_run else Reject, match="it refuses every call: max_tokens is too large"
    ):
        list(handler(event, tools))
    assert list(tools.store.list(keys.run(RUN))) == before
    assert tools.shutdown.stopping.is_set() == has_one_run


def test_an_unusable_engine_stops_the_process_and_fails_no_proof(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, RefusingEngine(EngineError("no such model", retryable=False)))
    tools.unusable = StopProcess(tools.shutdown)
    with pytest.raises(Retry, match="engine: no such model"):
        list(prove(POSED, tools))
    assert tools.shutdown.stopping.is_set()
    assert tools.shutdown.reason == "the engine cannot answer the generator: no such model"
    assert find_record(tools.store, keys.proof(RUN, PROOF), Proof) is None


@pytest.mark.parametrize("answered", [False, True])
def test_a_service_without_access_stops_unless_an_engine_ever_answered_it(
    tmp_path: Path, answered: bool
) -> None:
    tools = tools_with(tmp_path, RefusingEngine(AccessRefused("401")))
    if answered:  # its key is right: the run asks where it is not
        tools.health.add_taken("another", "generator", "m")
    with pytest.raises(Reject if answered else Retry, match="401"):
        list(prove(POSED, tools))
    assert tools.shutdown.stopping.is_set() != answered


class LeavingStore(LocalStore):
    """A store that is away while `away` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = threading.Event()

    def _path(self, key: str) -> str:
        if self.away.is_set():
            raise StoreError("the store is away")
        return super()._path(key)

    def leave(self, seconds: float) -> None:
        self.away.set()
        threading.Timer(seconds, self.away.clear).start()


class OutlivingEngine(CountingEngine):
    """Each time it is asked, the store leaves for so long."""

    def __init__(self, store: LeavingStore, away_s: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._store, self._away_s = store, away_s

    def submit(self, request: GenerationRequest) -> Call:
        self._store.leave(self._away_s)
        return super().submit(request)


@pytest.mark.parametrize(("handler", "event"), HANDLERS)
@pytest.mark.parametrize(
    ("latency_s", "away_s"),
    [(0.0, 0.5), (1.6, 1.4)],
    ids=["when the answer comes", "while it is waited for"],
)
def test_a_paid_answer_is_waited_for_and_kept_though_the_store_is_away(
    tmp_path: Path, handler: Any, event: Event, latency_s: float, away_s: float
) -> None:
    tools_with(tmp_path, CountingEngine(), *NEEDED[handler])
    store = LeavingStore(tmp_path)
    engine = OutlivingEngine(store, away_s, verifier_noise=0, latency_s=latency_s, latency_sigma=0)
    tools = Tools(store, lambda *_: engine)
    events = list(handler(event, tools))
    asked = engine.names()
    assert events and asked == list(dict.fromkeys(asked))  # nothing was paid twice
    assert list(handler(event, tools)) == events and engine.names() == asked  # it lies in the store
    engine.close()


def test_what_another_stored_during_the_absence_is_what_is_kept(tmp_path: Path) -> None:
    store, key = LeavingStore(tmp_path), keys.critique(RUN, PROOF, 0)
    put_record(store, key, critique(0, valid(1.0)))
    store.leave(0.2)
    kept = Tools(store, lambda *_: CountingEngine()).keep(key, critique(0, valid(0.0)))
    assert kept == critique(0, valid(1.0))


def test_an_answer_is_given_up_only_when_the_time_to_drain_is_over(tmp_path: Path) -> None:
    store, cancelling = LeavingStore(tmp_path), threading.Event()
    tools = Tools(store, lambda *_: CountingEngine(), shutdown=Shutdown(cancelling=cancelling))
    store.away.set()
    tools.shutdown.stop("asked to")
    threading.Timer(0.3, cancelling.set).start()
    with pytest.raises(StoreError, match="away"):
        tools.keep(keys.critique(RUN, PROOF, 0), critique(0, valid(0.0)))
    assert cancelling.is_set()


def test_an_answer_whose_place_is_taken_by_something_else_is_not_waited_for(tmp_path: Path) -> None:
    store, key = LocalStore(tmp_path), keys.critique(RUN, PROOF, 0)
    store.put_if_absent(key, b"not a record")
    with pytest.raises(CorruptObject, match="is not a valid Critique"):
        Tools(store, lambda *_: CountingEngine()).keep(key, critique(0, valid(0.0)))


def test_a_process_that_stops_asks_for_its_message_again(tmp_path: Path) -> None:
    engine = CountingEngine(latency_s=60, latency_sigma=0)
    tools = tools_with(tmp_path, engine)
    tools.shutdown.stop("asked to")
    with pytest.raises(Retry, match="the process is stopping"):
        list(prove(POSED, tools))
    assert find_record(tools.store, keys.proof(RUN, PROOF), Proof) is None
    engine.close()


@pytest.mark.parametrize(("handler", "event"), [*HANDLERS[1:], (label_proof, judged())])
def test_a_proof_that_is_gone_is_not_found(tmp_path: Path, handler: Any, event: Event) -> None:
    with pytest.raises(NotFound, match=PROOF):
        list(handler(event, tools_with(tmp_path, CountingEngine())))


# -- the runtime around a handler
# --------------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("quiet_log")


def outcome_of(
    tmp_path: Path, handler: Callable[[Any, Tools], Iterator[Event]], body: bytes = encode(judged())
) -> Outcome:
    bus, published = LocalBus(), []
    bus._on_publish = published.append
    tools = tools_with(tmp_path, CountingEngine())
    outcome = Worker(Role("labeler", {"ReviewJudged": handler}), bus, tools).process(Delivery(body))
    assert (outcome == ACK) == bool(published)
    return outcome


def test_what_a_handler_raises_becomes_an_outcome_and_nothing_is_published(tmp_path: Path) -> None:
    def raising(error: BaseException) -> Callable[[Any, Tools], Iterator[Event]]:
        def handle(event: Any, tools: Tools) -> Iterator[Event]:
            yield judged(1)
            raise error

        return handle

    outcomes = [
        outcome_of(tmp_path / str(number), raising(error))
        for number, error in enumerate(
            [
                Retry("later", after_s=7),
                Reject("never"),
                StoreError("away"),
                NotFound("k"),
                CorruptObject("k"),
                InvalidKey("k"),
                KeyError("bug"),
            ]
        )
    ]
    assert outcomes == [
        Outcome("requeue", "later", 7),
        Outcome("dead", "never"),
        Outcome("requeue", "away", 2.0),
        Outcome("failed", "the store lacks what the message names: k"),
        Outcome("failed", "the store lacks what the message names: k"),
        Outcome("dead", "the message names a key that the store refuses: k"),
        Outcome("failed", "KeyError: 'bug'"),
    ]


def test_what_a_handler_yields_is_published_and_acknowledged(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, lambda event, tools: iter([judged(1)])) == ACK


@pytest.mark.parametrize(
    "body",
    [b"", b"[" * 60_000, b'{"event":"ReviewJudged","run_id":"../x","proof_id":"p","index":0}'],
)
def test_a_body_that_is_no_event_is_dead_at_once(tmp_path: Path, body: bytes) -> None:
    assert (
        outcome_of(tmp_path, lambda event, tools: pytest.fail("never handled"), body).kind == "dead"
    )


def not_here() -> Engine:
    raise ConfigError('unknown engine "mine"', "use another")


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        (lambda: RefusingEngine(EngineError("no such model", retryable=False)), "no such model"),
        (not_here, 'unknown engine "mine"; use another'),
    ],
    ids=["no model", "no engine"],
)
def test_a_run_that_no_engine_can_answer_dies_and_its_worker_goes_on_with_the_others(
    tmp_path: Path, opened: Callable[[], Engine], reason: str
) -> None:
    answering, bus = CountingEngine(), LocalBus()
    tools = tools_with(tmp_path, answering)
    create_run(tools.store, runspec(name="wrong"), resume=False)
    put_record(tools.store, keys.problem("wrong", "p1"), tools.runs.problem(RUN, "p1"))
    tools.engine_for = lambda spec, role: answering if spec.name == RUN else opened()
    worker = Worker(Role("generator", {"ProblemPosed": prove}), bus, tools)
    for number in range(30):
        posed = POSED.model_copy(update={"run_id": "wrong", "proof_id": f"p1-{number}"})
        assert worker.process(Delivery(encode(posed))) == Outcome(
            "dead", f"the engine cannot answer the generator: {reason}"
        )
    assert worker.process(Delivery(encode(POSED))) == ACK
    assert not tools.shutdown.stopping.is_set()
    assert list(tools.store.list(keys.proofs("wrong"))) == []


def test_a_worker_whose_messages_mostly_fail_stops_and_says_why(tmp_path: Path) -> None:
    tools = tools_with(tmp_path, CountingEngine())
    worker = Worker(Role("labeler", {"ReviewJudged": label_proof}), LocalBus(), tools)
    for number in range(25):
        assert not tools.shutdown.stopping.is_set()
        worker.process(
            Delivery(encode(ReviewJudged(run_id=RUN, proof_id=f"gone-{number}", index=0)))
        )
    assert tools.shutdown.stopping.is_set()
    assert tools.shutdown.reason.startswith(
        "25 of 25 messages of the labeler failed, the last because: the store lacks"
    )


@pytest.mark.parametrize("handled", [0, 1])
def test_a_run_of_another_store_stops_only_a_worker_that_has_handled_no_other(
    tmp_path: Path, handled: int
) -> None:
    tools = tools_with(tmp_path, CountingEngine())
    worker = Worker(Role("generator", {"ProblemPosed": prove}), LocalBus(), tools)
    for _ in range(handled):
        assert worker.process(Delivery(encode(POSED))) == ACK
    elsewhere = encode(POSED.model_copy(update={"run_id": "elsewhere"}))
    for _ in range(25):
        assert worker.process(Delivery(elsewhere)).kind == "failed"
    assert tools.shutdown.is_stopping is not bool(handled)
