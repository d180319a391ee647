"""What every engine promises, run on each: OpenAI-compatible (on a scripted server), simulated,
local, and Triton.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proofloop.engine import open_engine
from proofloop.engine.base import ChatMessage, Engine, Generation, GenerationRequest
from proofloop.errors import EngineError
from proofloop.schema.records import Sampling
from tests.integration.triton_server import Triton
from tests.nano_base import nano_base_folder
from tests.scripted_openai import Exchange, ScriptedServer
from tests.scripted_triton import scripted_model


@dataclass(frozen=True)
class Subject:
    """An engine under test, a model it serves, and how to make a request that it must refuse."""

    engine: Engine
    model: str
    spoil: Callable[[GenerationRequest], GenerationRequest]

    def ask(self, seed: int = 1, max_tokens: int = 8) -> GenerationRequest:
        messages = (ChatMessage("user", "Prove that 2 + 2 = 4."),)
        return GenerationRequest(
            f"verifier:p:{seed}", self.model, messages, Sampling(max_tokens=max_tokens), seed
        )


def speak(exchange: Exchange) -> None:
    """A model that says its seed over and over, a word every few milliseconds."""
    if exchange.body["model"] == "missing":
        return exchange.refuse(404, {"error": {"message": "no model named missing"}})
    exchange.begin()
    exchange.event(choices=[], prompt_token_ids=[1, 2, 3])
    for _ in range(exchange.body["max_tokens"]):
        entries = [{"token": "x", "logprob": -0.25}]
        exchange.say(f"{exchange.body['seed']} ", token_ids=[5], logprobs={"content": entries})
        time.sleep(0.005)
    exchange.finish("length", completion_tokens=exchange.body["max_tokens"])


@contextmanager
def openai() -> Iterator[Subject]:
    with ScriptedServer(speak) as server:
        settings = {"base_url": server.base_url, "want_logprobs": True, "idle_timeout_s": 5}
        engine = open_engine("openai", settings, no_models)
        yield Subject(engine, "prover-7", lambda request: replace(request, model="missing"))
        engine.close()


@contextmanager
def simulated() -> Iterator[Subject]:
    engine = open_engine("simulated", {"latency_s": 0.05, "want_tokens": True}, no_models)
    yield Subject(engine, "any", lambda request: replace(request, id="nobody:p:1"))
    engine.close()


@contextmanager
def local() -> Iterator[Subject]:
    pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")
    folder = nano_base_folder()
    engine = open_engine("local", {}, lambda version: folder)
    too_long = (ChatMessage("user", "2 + 2 = 4. " * 20_000),)
    yield Subject(engine, "nano-base", lambda request: replace(request, messages=too_long))
    engine.close()


@contextmanager
def on_triton(server: Triton) -> Iterator[Subject]:
    settings = {
        "endpoints": [server.endpoint],
        "model_file": scripted_model(),
        "idle_timeout_s": 20,
    }
    engine = open_engine("triton", settings, no_models)
    refused = (ChatMessage("user", "refuse"),)
    yield Subject(
        engine,
        "runs/contract/models/verifier/000001",
        lambda request: replace(request, messages=refused),
    )
    engine.close()


def no_models(version: str) -> Path:
    raise AssertionError("this engine needs no model's folder")


SUBJECTS = {"openai": openai, "simulated": simulated, "local": local}


@pytest.fixture(params=[*SUBJECTS, "triton"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    opened = (
        on_triton(request.getfixturevalue("triton"))
        if request.param == "triton"
        else SUBJECTS[request.param]()
    )
    with opened as one:
        yield one


class TestEngineContract:
    def test_an_answer_says_where_it_came_from_and_what_it_cost(self, subject: Subject) -> None:
        generation = subject.engine.submit(subject.ask()).result(30)
        assert generation.model_version == subject.model
        assert generation.finish_reason in ("stop", "length")
        assert generation.prompt_tokens > 0 and generation.engine_seconds > 0
        assert 1 <= generation.completion_tokens <= 8

    def test_tokens_are_whole_or_absent(self, subject: Subject) -> None:
        generation = subject.engine.submit(subject.ask()).result(30)
        if tokens := generation.tokens:
            assert len(tokens.prompt_ids) > 0
            assert (
                len(tokens.completion_ids) == len(tokens.logprobs) == generation.completion_tokens
            )
            assert all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in tokens.logprobs)

    def test_the_same_call_gives_the_same_answer(self, subject: Subject) -> None:
        first, second = (subject.engine.submit(subject.ask(seed=7)).result(30) for _ in range(2))
        assert (first.text, first.tokens) == (second.text, second.tokens)

    def test_result_may_be_asked_again(self, subject: Subject) -> None:
        call = subject.engine.submit(subject.ask())
        assert call.result(30) == call.result()

    def test_calls_from_many_threads_each_get_their_own_answer(self, subject: Subject) -> None:
        alone = {
            seed: subject.engine.submit(subject.ask(seed)).result(30).text for seed in range(4)
        }
        found: dict[int, str] = {}

        def work(seed: int) -> None:
            found[seed] = subject.engine.submit(subject.ask(seed)).result(30).text

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == alone

    def test_a_cancelled_call_still_has_a_result(self, subject: Subject) -> None:
        calls = [subject.engine.submit(subject.ask(seed, max_tokens=400)) for seed in range(3)]
        for call in calls:
            call.cancel()
            call.cancel()
        reasons = {call.result(30).finish_reason for call in calls}
        assert reasons <= {"cancelled", "stop", "length"}  # a call that was quicker is no error
        assert subject.engine.submit(subject.ask()).result(30).finish_reason != "cancelled"

    def test_cancelling_after_the_end_changes_nothing(self, subject: Subject) -> None:
        call = subject.engine.submit(subject.ask())
        generation = call.result(30)
        call.cancel()
        assert call.result() == generation

    def test_a_call_that_can_never_work_fails_alone(self, subject: Subject) -> None:
        bad, good = (
            subject.engine.submit(subject.spoil(subject.ask())),
            subject.engine.submit(subject.ask()),
        )
        with pytest.raises(EngineError) as caught:
            bad.result(30)
        assert not caught.value.retryable
        assert isinstance(good.result(30), Generation)

    def test_a_closed_engine_answers_no_more(self, subject: Subject) -> None:
        running = subject.engine.submit(subject.ask(max_tokens=400))
        subject.engine.close()
        subject.engine.close()
        with pytest.raises(EngineError) as caught:
            subject.engine.submit(subject.ask()).result(5)
        assert caught.value.retryable
        try:
            assert running.result(5).finish_reason in ("cancelled", "stop", "length")
        except EngineError as error:
            assert error.retryable
