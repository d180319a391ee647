"""An engine from a blocking function: what becomes of calls that wait for a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.threaded import ThreadedEngine
from proofloop.errors import EngineError
from proofloop.schema.records import Sampling

REQUEST = GenerationRequest("verifier:p:1", "m", (ChatMessage("user", "?"),), Sampling(), seed=1)


class Gated(ThreadedEngine):
    """Answers one request at a time, once `gate` is open."""

    def __init__(self) -> None:
        super().__init__(max_concurrency=1)
        self.gate = threading.Event()
        self.answered = 0

    def answer(self, request: GenerationRequest, cancelled: threading.Event) -> Generation:
        assert self.gate.wait(10)
        self.answered += 1
        return Generation("Yes.", "stop", 1, 1, 0.1, request.model)


@pytest.fixture
def engine() -> Iterator[Gated]:
    engine = Gated()
    yield engine
    engine.gate.set()
    engine.close()


def test_a_cancelled_call_that_waits_is_never_answered(engine: Gated) -> None:
    running, waiting = engine.submit(REQUEST), engine.submit(REQUEST)
    waiting.cancel()
    engine.gate.set()
    assert running.result(10).finish_reason == "stop"
    assert waiting.result(10).finish_reason == "cancelled"
    assert engine.answered == 1


def test_closing_fails_the_calls_that_wait(engine: Gated) -> None:
    running, waiting = engine.submit(REQUEST), engine.submit(REQUEST)
    threading.Timer(0.05, engine.gate.set).start()
    engine.close()
    assert running.result(0).text == "Yes."
    with pytest.raises(EngineError, match="the engine is closed") as caught:
        waiting.result(0)
    assert caught.value.retryable


def test_an_answer_of_the_wrong_type_is_an_error_that_names_the_engine() -> None:
    class Silent(ThreadedEngine):
        def answer(self, request: GenerationRequest, cancelled: threading.Event) -> Generation:
            return None  # type: ignore[return-value]

    engine = Silent()
    with pytest.raises(EngineError, match=r"Silent\.answer returned None; return a proofloop"):
        engine.submit(REQUEST).result(10)
    engine.close()
