"""The engine `tensorrt_llm` on a double of the LLM API, which needs a GPU: what it makes of a streamed answer."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")

from proofloop.engine.base import ChatMessage
from proofloop.errors import CallRefused
from proofloop.records import Sampling
from proofloop_serving.asks import Ask
from proofloop_serving.settings import TensorRTSettings
from proofloop_serving.tensorrt_engine import TensorRTEngine

TOKENS = 400


class Counted(list[Any]):
    """A list that knows how many of its elements were read."""

    read = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        Counted.read += len(found) if isinstance(place, slice) else 1
        return found

    def __iter__(self) -> Any:
        Counted.read += len(self)
        return super().__iter__()


class Answer:
    """A RequestOutput and its one CompletionOutput: its lists grow, and the stop string's token goes at the end."""

    def __init__(self) -> None:
        self.outputs = [self]
        self.token_ids, self.logprobs = Counted(), Counted()
        self.text, self.finish_reason, self.stop_reason, self.cached_tokens = "", None, None, 0
        self.call: Any = None
        self.has_begun = threading.Event()
        self.seen: list[tuple[int, float]] = []

    async def __aiter__(self) -> AsyncIterator[Answer]:
        while not self.has_begun.is_set():
            await asyncio.sleep(0.001)
        for token in range(TOKENS):
            self.token_ids.append(token)
            self.logprobs.append({token: SimpleNamespace(logprob=-1.0)})
            if token == TOKENS - 1:
                self.finish_reason, self.stop_reason, self.token_ids = "stop", "END", self.token_ids[:-1]
            yield self
            self.seen.append((len(self.call.latest.token_ids), sum(self.call.latest.logprobs)))


def no_template(*turns: object, **options: object) -> list[int]:
    raise ValueError("tokenizer.chat_template is not set")


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    given = Answer()
    llm = SimpleNamespace(
        tokenizer=SimpleNamespace(encode=lambda text: [1, 2, 3], apply_chat_template=no_template),
        generate_async=lambda *asked, **named: given,
        shutdown=lambda: None,
    )
    double = SimpleNamespace(LLM=lambda **named: llm, SamplingParams=dict)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", double)
    return given


def test_a_streamed_answer_is_read_once_as_it_comes_and_once_at_its_end(answer: Answer) -> None:
    engine, done = TensorRTEngine(Path(), TensorRTSettings(engine="tensorrt_llm")), threading.Event()
    Counted.read = 0
    answer.call = engine.begin(Ask("a", "Prove it.", Sampling(), seed=0), done.set)
    answer.has_begun.set()
    assert done.wait(30)
    engine.close()
    whole = answer.call.progress(want_text=True)
    assert (whole.finish_reason, whole.stop_reason, whole.prompt_ids) == ("stop", "END", [1, 2, 3])
    assert (whole.token_ids, whole.logprobs) == (list(range(TOKENS - 1)), [-1.0] * (TOKENS - 1))
    assert answer.seen[:-1] == [(count, -float(count)) for count in range(1, TOKENS)]
    assert Counted.read <= 6 * TOKENS


def test_a_model_without_a_chat_template_refuses_the_call_and_harms_no_other(answer: Answer) -> None:
    engine = TensorRTEngine(Path(), TensorRTSettings(engine="tensorrt_llm"))
    with pytest.raises(CallRefused, match="cannot read the prompt: ValueError: tokenizer"):
        engine.begin(Ask("a", (ChatMessage("user", "Prove it."),), Sampling(), seed=0), lambda: None)
    engine.close()
