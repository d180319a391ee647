"""The simulated engine: seeded answers in the right formats, with planted qualities, failures and
latencies.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.simulated.answers import SimulatedSettings, answer
from proofloop.engine.simulated.engine import SimulatedEngine
from proofloop.errors import EngineError
from proofloop.method.prompts import Reader
from proofloop.schema.records import Sampling, Verdict

ROLES = ("generator", "verifier", "meta_verifier")
EXACT = SimulatedSettings(verifier_noise=0)
MANY = 2000


def request(
    role: str, seed: int = 1, prompt: str = "Prove it.", attempt: str = "a", max_tokens: int = 4096
) -> GenerationRequest:
    sampling = Sampling(max_tokens=max_tokens)
    return GenerationRequest(
        f"{role}:p1:0:{attempt}", "m-1", (ChatMessage("user", prompt),), sampling, seed
    )


def verdict(role: str, text: str, finish_reason: str = "stop") -> Verdict:
    if role == "generator":
        return Reader().proof(text, finish_reason).verdict
    parse = Reader().evaluation if role == "verifier" else Reader().meta_critique
    return parse(text, finish_reason).verdict


def share(
    settings: SimulatedSettings,
    role: str,
    is_so: Callable[[Verdict], bool],
    prompt: str = "Prove it.",
) -> float:
    generations = (answer(settings, request(role, seed, prompt)) for seed in range(MANY))
    return sum(is_so(verdict(role, one.text, one.finish_reason)) for one in generations) / MANY


def test_a_check_fails_only_if_every_attempt_fails() -> None:
    def check(model: str, failure_share: float) -> None:
        sampling = Sampling(max_tokens=1)
        asked = GenerationRequest(f"generator:check:{model}", model, (), sampling, 0)
        answer(SimulatedSettings(failure_share=failure_share), asked)

    for number in range(100):
        check(f"m-{number}", 0.5)
    with pytest.raises(EngineError, match="simulated failure"):
        check("m-1", 1.0)


@pytest.mark.parametrize("role", ROLES)
@given(seed=st.integers(0, 2**63 - 1))
def test_every_role_answers_in_its_format(role: str, seed: int) -> None:
    generation = answer(EXACT, request(role, seed))
    assert verdict(role, generation.text).outcome == "valid"
    assert generation.finish_reason == "stop"
    assert 1 <= generation.completion_tokens <= 4096


def test_the_same_seed_gives_the_same_answer_in_any_order() -> None:
    requests = [request(role, seed) for role in ROLES for seed in range(50)]
    forwards = [answer(EXACT, one) for one in requests]
    backwards = [answer(EXACT, one) for one in reversed(requests)]
    assert forwards == backwards[::-1]
    assert len({one.text for one in forwards[:50]}) == 50


def test_another_seed_in_the_settings_gives_other_answers() -> None:
    other = SimulatedSettings(verifier_noise=0, seed=1)
    assert answer(EXACT, request("generator")) != answer(other, request("generator"))


@pytest.mark.parametrize("quality", ["0", "0.5", "1"])
def test_the_verifier_reads_the_hidden_quality(quality: str) -> None:
    prompt = f"Grade this.\n<proof>Simulated proof 8f3a of quality {quality}.</proof>"
    scores = {
        verdict("verifier", answer(EXACT, request("verifier", seed, prompt)).text).score
        for seed in range(20)
    }
    assert scores == {float(quality)}


@pytest.mark.parametrize(
    ("quality", "claim", "rating"),
    [
        ("1", "1", 1),
        ("1", "0", 0),
        ("1", "0.5", 0),
        ("0", "0", 1),
        ("0", "0.5", 0.5),
        ("0", "1", 1),
        ("0.5", "0", 0.5),
    ],
)
def test_the_meta_verifier_compares_the_claim_with_the_proof(
    quality: str, claim: str, rating: float
) -> None:
    prompt = (
        f"Simulated proof 8f3a of quality {quality}.\n---\nSimulated analysis claims quality"
        f" {claim}."
    )
    assert (
        verdict("meta_verifier", answer(EXACT, request("meta_verifier", prompt=prompt)).text).score
        == rating
    )


def test_a_generated_proof_carries_its_quality_through_all_three_roles() -> None:
    for seed in range(30):
        proof = Reader().proof(answer(EXACT, request("generator", seed)).text, "stop")
        review = Reader().evaluation(
            answer(EXACT, request("verifier", seed, proof.solution)).text, "stop"
        )
        judged = answer(EXACT, request("meta_verifier", seed, f"{proof.solution}\n{review.text}"))
        assert review.verdict == proof.verdict
        assert Reader().meta_critique(judged.text, "stop").verdict.score == 1


def test_a_refined_proof_is_never_worse_than_what_it_was_shown() -> None:
    shown = "Simulated proof aa of quality 0.\nSimulated proof bb of quality 0.5."
    scores = [
        verdict("generator", answer(EXACT, request("generator", seed, shown)).text).score
        for seed in range(50)
    ]
    assert set(scores) == {0.5, 1.0}


def test_a_proof_that_says_nothing_of_itself_has_one_quality_for_all_verifiers() -> None:
    answers = [answer(EXACT, request("verifier", seed, "Let n = 2k.")).text for seed in range(20)]
    assert len({verdict("verifier", text).score for text in answers}) == 1


def test_shares_are_as_planted() -> None:
    good = "Simulated proof 8f3a of quality 1."
    skilled = SimulatedSettings(good_share=0.3, half_share=0.4, verifier_noise=0)
    careless = SimulatedSettings(verifier_noise=0.2)
    assert share(skilled, "generator", lambda v: v.score == 1) == pytest.approx(0.3, abs=0.04)
    assert share(skilled, "generator", lambda v: v.score == 0.5) == pytest.approx(0.28, abs=0.04)
    assert share(careless, "verifier", lambda v: v.score != 1, good) == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("role", ROLES)
def test_malformed_and_truncated_answers_come_as_often_as_asked(role: str) -> None:
    settings = SimulatedSettings(malformed_share=0.2, truncated_share=0.1)
    assert share(settings, role, lambda v: v.outcome == "truncated") == pytest.approx(0.1, abs=0.03)
    assert share(settings, role, lambda v: v.outcome == "malformed") == pytest.approx(
        0.2 * 0.9, abs=0.04
    )


def test_a_truncated_answer_fills_its_tokens() -> None:
    generation = answer(SimulatedSettings(truncated_share=1), request("verifier", max_tokens=77))
    assert (generation.finish_reason, generation.completion_tokens) == ("length", 77)


def test_a_failed_attempt_may_work_the_next_time() -> None:
    engine = SimulatedEngine(SimulatedSettings(failure_share=0.5))
    outcomes = [
        _outcome(engine, request("verifier", attempt=str(attempt))) for attempt in range(200)
    ]
    assert len(set(outcomes) - {None}) == 1  # the attempts that work all give the one answer
    assert 60 < outcomes.count(None) < 140


def _outcome(engine: SimulatedEngine, one: GenerationRequest) -> str | None:
    try:
        return engine.submit(one).result().text
    except EngineError as error:
        assert error.retryable
        return None


def test_an_id_without_a_role_is_refused_with_the_way_out() -> None:
    way_out = 'request id "oops:p1:0:a"; begin it with one of generator:, verifier:, meta_verifier:'
    with pytest.raises(EngineError, match=way_out):
        SimulatedEngine(EXACT).submit(request("oops")).result()


def test_a_crash_ends_the_process() -> None:
    code = (
        "from proofloop.engine.base import *; from proofloop.schema.records import Sampling\n"
        "from proofloop.engine.simulated.engine import SimulatedEngine, SimulatedSettings\n"
        "engine = SimulatedEngine(SimulatedSettings(crash_share=1))\n"
        "engine.submit(GenerationRequest('verifier:1', 'm', (), Sampling(), 1)).result()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 137


def test_made_up_tokens_fit_the_counts() -> None:
    generation = answer(SimulatedSettings(want_tokens=True), request("verifier"))
    assert generation.tokens is not None
    assert len(generation.tokens.prompt_ids) == generation.prompt_tokens
    assert (
        len(generation.tokens.completion_ids)
        == len(generation.tokens.logprobs)
        == generation.completion_tokens
    )
    assert max(generation.tokens.logprobs) <= 0


# -- latency
# --------------------------------------------------------------------------------------------------


def timed(**settings: Any) -> SimulatedEngine:
    return SimulatedEngine(
        SimulatedSettings(**({"latency_s": 0.05, "latency_sigma": 0} | settings))
    )


def test_without_latency_there_is_no_thread() -> None:
    before = threading.active_count()
    engine = SimulatedEngine(EXACT)
    assert engine.submit(request("verifier")).result() == answer(EXACT, request("verifier"))
    assert threading.active_count() == before


def test_many_timed_calls_share_one_thread_and_answer_as_without_latency() -> None:
    engine, before = timed(max_concurrency=1000), threading.active_count()
    began = time.monotonic()
    calls = [engine.submit(request("verifier", seed)) for seed in range(500)]
    texts = [call.result(5).text for call in calls]
    assert 0.05 <= time.monotonic() - began < 5
    assert threading.active_count() == before
    assert texts == [
        answer(SimulatedSettings(), request("verifier", seed)).text for seed in range(500)
    ]
    engine.close()


def test_only_so_many_calls_run_at_a_time() -> None:
    engine = timed(max_concurrency=2)
    began = time.monotonic()
    for call in [engine.submit(request("verifier", seed)) for seed in range(6)]:
        call.result(5)
    assert 0.15 <= time.monotonic() - began < 5
    engine.close()


def test_a_cancelled_call_ends_at_once_and_frees_its_slot() -> None:
    engine = timed(latency_s=30, max_concurrency=1)
    running, waiting = engine.submit(request("verifier", 1)), engine.submit(request("verifier", 2))
    with pytest.raises(TimeoutError):
        waiting.result(0.05)
    for call in (running, waiting):
        call.cancel()
        call.cancel()
        assert call.result(0.5).finish_reason == "cancelled"
    engine.close()


def test_latencies_have_a_median_and_a_tail() -> None:
    settings = SimulatedSettings(latency_s=2.0, latency_sigma=0.6)
    seconds = sorted(
        answer(settings, request("verifier", seed)).engine_seconds for seed in range(MANY)
    )
    assert seconds[MANY // 2] == pytest.approx(2.0, rel=0.1)
    assert seconds[-MANY // 100] > 6.0


def test_failures_are_raised_by_timed_calls_too() -> None:
    engine = timed(failure_share=1)
    with pytest.raises(EngineError, match="simulated failure"):
        engine.submit(request("verifier")).result(5)
    engine.close()


def test_closing_cancels_what_waits() -> None:
    engine = timed(latency_s=30)
    call = engine.submit(request("verifier"))
    engine.close()
    engine.close()
    assert call.result(0.5).finish_reason == "cancelled"
    with pytest.raises(EngineError, match="closed"):
        engine.submit(request("verifier"))
