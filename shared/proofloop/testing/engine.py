"""The contract of an engine: calls run at once, an answer depends on the request alone, and each
call ends with an answer or an EngineError.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from proofloop.engine.base import ChatMessage, Engine, Generation, GenerationRequest
from proofloop.errors import EngineError
from proofloop.schema.records import Sampling


@dataclass(frozen=True)
class EngineSubject:
    """An engine under test, a model that it serves, and a prompt that it answers.

    `spoil` turns a request into one that the engine must refuse for good.
    """

    engine: Engine
    model: str
    spoil: Callable[[GenerationRequest], GenerationRequest]
    prompt: str = "Prove that 2 + 2 = 4."

    def ask(self, seed: int = 1, max_tokens: int = 8) -> GenerationRequest:
        messages = (ChatMessage("user", self.prompt),)
        return GenerationRequest(
            f"verifier:p:{seed}", self.model, messages, Sampling(max_tokens=max_tokens), seed
        )


class EngineContract:
    """Override `subject` with a fixture that opens an engine and closes it after the test.

    The engine must run several calls at once. Its model should write at least 8 tokens for any
    prompt, and take some time for 400.
    """

    @pytest.fixture
    def subject(self) -> Iterator[EngineSubject]:
        raise NotImplementedError("override `subject` with your engine")

    def test_an_answer_names_its_model_and_its_cost(self, subject: EngineSubject) -> None:
        generation = subject.engine.submit(subject.ask()).result(30)
        assert generation.model_version == subject.model
        assert generation.finish_reason in ("stop", "length")
        assert generation.prompt_tokens > 0 and generation.engine_seconds > 0
        assert 1 <= generation.completion_tokens <= 8

    def test_tokens_are_whole_or_absent(self, subject: EngineSubject) -> None:
        generation = subject.engine.submit(subject.ask()).result(30)
        if tokens := generation.tokens:
            assert len(tokens.prompt_ids) > 0
            assert (
                len(tokens.completion_ids) == len(tokens.logprobs) == generation.completion_tokens
            )
            assert all(math.isfinite(logprob) and logprob <= 1e-6 for logprob in tokens.logprobs)

    def test_the_same_call_gives_the_same_answer(self, subject: EngineSubject) -> None:
        first, second = (subject.engine.submit(subject.ask(seed=7)).result(30) for _ in range(2))
        assert (first.text, first.tokens) == (second.text, second.tokens)

    def test_a_result_can_be_read_twice(self, subject: EngineSubject) -> None:
        call = subject.engine.submit(subject.ask())
        assert call.result(30) == call.result()

    def test_calls_from_many_threads_get_their_own_answers(self, subject: EngineSubject) -> None:
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

    def test_a_cancelled_call_still_has_a_result(self, subject: EngineSubject) -> None:
        calls = [subject.engine.submit(subject.ask(seed, max_tokens=400)) for seed in range(3)]
        for call in calls:
            call.cancel()
            call.cancel()
        reasons = {call.result(30).finish_reason for call in calls}
        assert reasons <= {"cancelled", "stop", "length"}  # a call that was quicker is no error
        assert subject.engine.submit(subject.ask()).result(30).finish_reason != "cancelled"

    def test_a_caller_is_told_when_its_call_has_ended(self, subject: EngineSubject) -> None:
        calls = [subject.engine.submit(subject.ask(seed, max_tokens=400)) for seed in range(3)]
        ended = [threading.Event() for _ in calls]
        for call, event in zip(calls, ended, strict=True):
            call.when_done(event.set)
        calls[0].cancel()
        for call, event in zip(calls, ended, strict=True):
            assert event.wait(60)
            call.result(0)
        late = threading.Event()
        calls[0].when_done(late.set)
        assert late.is_set()

    def test_cancelling_after_the_end_changes_nothing(self, subject: EngineSubject) -> None:
        call = subject.engine.submit(subject.ask())
        generation = call.result(30)
        call.cancel()
        assert call.result() == generation

    def test_a_call_that_can_never_work_fails_alone(self, subject: EngineSubject) -> None:
        bad = subject.engine.submit(subject.spoil(subject.ask()))
        good = subject.engine.submit(subject.ask())
        with pytest.raises(EngineError) as caught:
            bad.result(30)
        assert not caught.value.retryable
        assert isinstance(good.result(30), Generation)

    def test_a_closed_engine_answers_no_more(self, subject: EngineSubject) -> None:
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
