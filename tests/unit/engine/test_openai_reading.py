"""The stream reader against bytes of any kind, cut anywhere: an answer or an error of ours, the
same each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.openai.body import BodyReader
from proofloop.engine.openai.chunk import Chunk, plain_text, read_chunk
from proofloop.engine.openai.failure import AttemptFailed, FailureKind, Refusal
from proofloop.engine.openai.stream import (
    AFTER_DONE_S,
    AFTER_FINISH_S,
    StreamDeadline,
    StreamedAnswer,
)
from proofloop.errors import EngineError
from proofloop.schema.records import Sampling, Tokens
from tests.scripted_openai import chunk

REQUEST = GenerationRequest(
    "generator:1", "m", (ChatMessage("user", "Prove it."),), Sampling(), seed=1
)
LIMIT_BYTES = 2000


def events_of(pieces: Sequence[bytes], limit_bytes: int = LIMIT_BYTES) -> list[bytes | str]:
    """The events of a body, and the error that ended it."""
    reader, events = BodyReader(limit_bytes), list[bytes | str]()
    try:
        for piece in pieces:
            events += reader.feed(piece)
        events += reader.end()
    except EngineError as error:
        events.append(str(error))
    return [*events, f"foreign: {reader.is_foreign}, start: {reader.start!r}"]


def answer_to(*events: bytes) -> Generation | str:
    """The answer, or what is said in place of one."""
    answer = StreamedAnswer(LIMIT_BYTES)
    try:
        for event in events:
            answer.absorb(event)
        return answer.generation(
            REQUEST, engine_seconds=1.0, cancelled=False, think_end="</think>", keep_tokens=True
        )
    except (AttemptFailed, EngineError) as error:
        return f"{type(error).__name__}: {error}"


def without_finish(choice: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in choice.items() if name != "finish_reason"}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just("\ud835")
    | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": JSON_VALUES,
        "reasoning": JSON_VALUES,
        "reasoning_content": JSON_VALUES,
        "refusal": JSON_VALUES,
    },
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "delta": DELTAS | JSON_VALUES,
        "message": DELTAS | JSON_VALUES,
        "finish_reason": st.sampled_from(["stop", "length", "abort", "odd", None]) | JSON_VALUES,
        "token_ids": st.lists(st.integers(), max_size=3) | JSON_VALUES,
        "logprobs": st.fixed_dictionaries(
            {"content": st.lists(st.fixed_dictionaries({"logprob": JSON_VALUES}))}
        )
        | JSON_VALUES,
    },
)
USAGES = st.fixed_dictionaries({"prompt_tokens": JSON_VALUES, "completion_tokens": JSON_VALUES})
ERRORS = st.fixed_dictionaries(
    {}, optional={"code": JSON_VALUES, "message": JSON_VALUES, "type": JSON_VALUES}
)
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICES | JSON_VALUES, max_size=2) | JSON_VALUES,
        "usage": USAGES | JSON_VALUES,
        "prompt_token_ids": st.lists(st.integers(), max_size=3) | JSON_VALUES,
        "error": ERRORS | JSON_VALUES,
        "object": JSON_VALUES | st.just("error"),
    },
)
SOUND_CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES.map(without_finish), min_size=1, max_size=1)},
    optional={"usage": USAGES, "prompt_token_ids": st.lists(st.integers(), max_size=3)},
)
LINE_ENDS = st.sampled_from([b"\n", b"\n\n", b"\r\n\r\n", b"\r", b""])
FIELDS = st.sampled_from(
    [b"data: ", b"data:", b": ", b"event: ", b"error: ", b"\xef\xbb\xbf", b" ", b""]
)
PAYLOADS = (
    CHUNKS.map(lambda value: json.dumps(value).encode())
    | st.just(b"[DONE]")
    | st.binary(max_size=20)
    | st.just(b"<!DOCTYPE html>")
    | st.just(b"[" * 1900)
)
LINES = st.tuples(FIELDS, PAYLOADS, LINE_ENDS).map(b"".join)
BODIES = st.binary(max_size=300) | st.lists(LINES, max_size=6).map(b"".join)


@st.composite
def cut_bodies(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A body, and the same in pieces, some of them empty."""
    body = draw(BODIES)
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return body, list(pieces_of(body, places))


def pieces_of(body: bytes, places: Sequence[int]) -> Iterator[bytes]:
    yield from (
        body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)
    )


@given(cut_bodies())
@example((b"\xef\xbb\xbfdata: {}\n\n", [b"\xef", b"\xbb\xbf", b"", b"data: {}\n\n"]))
@example((b" \n\xef\xbb\xbf{}", [b" ", b"\n\xef", b"\xbb\xbf{}"]))
@example((b"data: a\r\n\r\n", [b"data: a\r", b"\n\r\n"]))
@example((b"data: 1\ndata: 2\rdata: 3", [b"data: 1\n", b"data: 2\r", b"data: 3"]))
def test_any_bytes_give_the_same_events_however_they_are_cut(
    case: tuple[bytes, list[bytes]],
) -> None:
    body, pieces = case
    whole = events_of([body])
    assert events_of(pieces) == whole
    assert events_of([bytes([byte]) for byte in body]) == whole


@given(
    st.fixed_dictionaries(
        {"choices": st.lists(CHOICES, min_size=1, max_size=2)},
        optional={"usage": USAGES | st.none(), "error": st.none(), "object": st.text()},
    )
)
@example({"choices": [{"delta": {"content": "x", "role": "assistant"}, "finish_reason": None}]})
@example({"choices": [{"delta": {"content": "x"}}], "object": "error"})
@example({"choices": [{"delta": {"content": "x", "reasoning": "y"}}]})
@example({"choices": [{"delta": {"content": "x"}, "token_ids": [1]}]})
def test_the_quick_way_reads_only_what_the_other_reads_alike(body: dict[str, object]) -> None:
    text = plain_text(body)
    whole = read_chunk(body, b"") if text else None
    assert whole is None or whole == Chunk(has_choices=True, text=text)


def test_an_event_of_text_alone_takes_the_quick_way() -> None:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": None}],
    }
    assert plain_text(body) == "x"


@given(st.lists(PAYLOADS, max_size=4))
def test_any_event_gives_an_answer_or_an_error_of_ours(events: list[bytes]) -> None:
    assert answer_to(*events)


@given(st.lists(SOUND_CHUNKS, max_size=4))
@example(
    [
        {"choices": [{"delta": {"content": "\ud835"}}]},
        {"choices": [{"delta": {"content": "\udd3d \ud835"}}]},
    ]
)
@example(
    [
        {
            "choices": [{"token_ids": [1], "logprobs": {"content": [{"logprob": 10**400}]}}],
            "prompt_token_ids": [1],
        }
    ]
)
def test_what_is_read_can_be_stored(chunks: list[object]) -> None:
    found = answer_to(
        *(json.dumps(each).encode() for each in chunks), b'{"choices": [{"finish_reason": "stop"}]}'
    )
    assert isinstance(found, Generation)
    (found.text + found.reasoning).encode()
    assert found.prompt_tokens >= 0 and found.completion_tokens >= 0 and found.cached_tokens >= 0
    assert (
        found.tokens is None
        or Tokens.model_validate_json(found.tokens.model_dump_json()) == found.tokens
    )


@given(st.integers(100, 599), st.text() | JSON_VALUES.map(json.dumps), st.text(), st.text())
def test_any_refusal_is_understood(
    status: int, text: str, retry_after: str, milliseconds: str
) -> None:
    refusal = Refusal(status, text, retry_after, milliseconds)
    wait_s = refusal.wait_s()
    assert refusal.kind in get_args(FailureKind)
    assert isinstance(refusal.message(), str) and isinstance(refusal.names("seed"), bool)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_what_is_too_long_is_refused_in_the_same_words_however_it_is_cut(size: int) -> None:
    body = chunk({"content": "x"}) + b"data: " + b"y" * 3000 + b"\n\n"
    found = events_of([body[start : start + size] for start in range(0, len(body), size)])
    assert found == events_of([body])
    assert "max_answer_bytes = 2000" in str(found[1])


# -- how long a stream may be silent
# -----------------------------------------------------------------------------------


def answer_of(*events: bytes) -> StreamedAnswer:
    answer = StreamedAnswer(LIMIT_BYTES)
    for event in events:
        answer.absorb(event.strip().removeprefix(b"data: "))
    return answer


def test_every_byte_holds_off_the_idle_timeout_and_only_content_the_other() -> None:
    deadline, answer = StreamDeadline(idle_s=10, content_s=25, now=0), answer_of()
    assert [deadline.extend(answer, now) for now in (8, 14, 20)] == [18, 24, 25]
    answer.absorb(chunk({"content": "x"}).strip().removeprefix(b"data: "))
    assert [deadline.extend(answer, now) for now in (24, 30, 48)] == [34, 40, 49]
    assert "idle_timeout_s = 10" in deadline.problem(40)
    assert "content_timeout_s = 25" in deadline.problem(49)


def test_a_raised_idle_timeout_is_not_cut_by_the_other() -> None:
    assert StreamDeadline(idle_s=7200, content_s=3600, now=0).extend(answer_of(), 7000) == 7200


def test_after_the_finish_nothing_holds_off_the_end() -> None:
    deadline = StreamDeadline(idle_s=10, content_s=25, now=0)
    answer = answer_of(chunk({"content": "x"}, "stop"))
    assert [deadline.extend(answer, now) for now in (1, 4, 5.5)] == [1 + AFTER_FINISH_S] * 3
    answer.absorb(b"[DONE]")
    assert deadline.extend(answer, 2) == 2 + AFTER_DONE_S
