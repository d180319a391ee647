"""The engine `tensorrt_llm` on a double of the LLM API, which needs a GPU: what it makes of a
streamed answer.
"""

from __future__ import annotations

import asyncio
import math
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
from proofloop.schema.records import Sampling
from proofloop_serving.calls import ServingRequest
from proofloop_serving.settings import TensorRTSettings
from proofloop_serving.tensorrt_engine import TensorRTEngine, _logprob

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
    """A RequestOutput and its one CompletionOutput: its lists grow, and the stop string's token
    goes at the end.
    """

    def __init__(self) -> None:
        self.outputs = [self]
        self.token_ids, self.logprobs = Counted(), Counted()
        self.text, self.finish_reason, self.stop_reason, self.cached_tokens = "", None, None, 0
        self.call: Any = None
        self.llm: Any = None
        self.has_begun = threading.Event()
        self.seen: list[tuple[int, float]] = []
        self.asked: tuple[Any, ...] = ()

    def begun(self, *asked: Any, **named: Any) -> Answer:
        self.asked = asked
        return self

    async def __aiter__(self) -> AsyncIterator[Answer]:
        while not self.has_begun.is_set():
            await asyncio.sleep(0.001)
        for token in range(TOKENS):
            self.token_ids.append(token)
            self.logprobs.append({token: SimpleNamespace(logprob=-1.0)})
            if token == TOKENS - 1:
                self.finish_reason = "stop"
                self.stop_reason = "END"
                self.token_ids = self.token_ids[:-1]
            yield self
            self.seen.append((len(self.call.latest.token_ids), sum(self.call.latest.logprobs)))


class Tokenizer:
    """One without a chat template, or one of TensorRT-LLM's own, which gives text:
    `CustomTokenizer`.
    """

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return ([0] if add_special_tokens else []) + [len(word) for word in text.split()]

    def apply_chat_template(self, turns: object, **options: object) -> str:
        raise ValueError("tokenizer.chat_template is not set")


class CustomTokenizer(Tokenizer):
    def apply_chat_template(self, turns: Any, **options: Any) -> str:
        return f"<bos> {turns[0]['content']} {'<think>' if options.get('thinking') else '</think>'}"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    given = Answer()
    llm = SimpleNamespace(tokenizer=Tokenizer(), generate_async=given.begun, shutdown=lambda: None)
    given.llm = llm
    double = SimpleNamespace(LLM=lambda **named: llm, SamplingParams=dict)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", double)
    return given


def test_a_streamed_answer_is_read_once_as_it_comes_and_once_at_its_end(answer: Answer) -> None:
    engine = TensorRTEngine(Path(), TensorRTSettings(engine="tensorrt_llm"))
    done = threading.Event()
    Counted.read = 0
    answer.call = engine.begin(ServingRequest("a", "Prove it.", Sampling(), seed=0), done.set)
    answer.has_begun.set()
    assert done.wait(30)
    engine.close()
    whole = answer.call.progress(want_text=True)
    assert (whole.finish_reason, whole.stop_reason, whole.prompt_ids) == ("stop", "END", [0, 5, 3])
    assert (whole.token_ids, whole.logprobs) == (list(range(TOKENS - 1)), [-1.0] * (TOKENS - 1))
    assert answer.seen[:-1] == [(count, -float(count)) for count in range(1, TOKENS)]
    assert Counted.read <= 6 * TOKENS


def test_a_model_without_a_chat_template_refuses_the_call_and_harms_no_other(
    answer: Answer,
) -> None:
    engine = TensorRTEngine(Path(), TensorRTSettings(engine="tensorrt_llm"))
    with pytest.raises(CallRefused, match="cannot read the prompt: ValueError: tokenizer"):
        engine.begin(
            ServingRequest("a", (ChatMessage("user", "Prove it."),), Sampling(), seed=0),
            lambda: None,
        )
    engine.close()


def test_the_text_of_a_template_is_read_once_with_its_special_tokens(answer: Answer) -> None:
    answer.llm.tokenizer = CustomTokenizer()
    settings = TensorRTSettings(engine="tensorrt_llm", chat_template_values={"thinking": True})
    assert asked_of(answer, settings, (ChatMessage("user", "Prove it."),), Sampling())[0] == [
        5,
        5,
        3,
        7,
    ]


PLAIN = Sampling(temperature=1, top_p=1)


@pytest.mark.parametrize(
    ("sampling", "llm", "expected"),
    [
        (PLAIN, {}, 1),
        (Sampling(temperature=1, top_p=0.95), {}, None),
        (Sampling(temperature=0.7, top_p=1), {}, None),
        (Sampling(temperature=0, top_p=1), {}, None),
        (PLAIN, {"speculative_config": {"decoding_type": "MTP"}}, None),
    ],
)
def test_log_probabilities_are_asked_for_where_they_are_those_of_the_sampling(
    answer: Answer, sampling: Sampling, llm: dict[str, Any], expected: int | None
) -> None:
    settings = TensorRTSettings(engine="tensorrt_llm", llm=llm)
    assert asked_of(answer, settings, "Prove it.", sampling)[1]["logprobs"] == expected


def test_a_token_whose_log_probability_is_missing_has_none_that_counts() -> None:
    likelier = {7: SimpleNamespace(logprob=-0.1)}
    assert _logprob(likelier, 7) == _logprob(-0.1, 7) == -0.1
    assert math.isnan(_logprob(likelier, 8))


def asked_of(
    answer: Answer, settings: TensorRTSettings, prompt: Any, sampling: Sampling
) -> tuple[Any, ...]:
    """What the LLM API is given for a call: the prompt's tokens, and the sampling parameters."""
    engine, done = TensorRTEngine(Path(), settings), threading.Event()
    answer.call = engine.begin(ServingRequest("a", prompt, sampling, seed=0), done.set)
    answer.has_begun.set()
    assert done.wait(30)
    engine.close()
    return answer.asked
