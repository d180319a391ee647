"""The OpenAI-compatible engine against a real HTTP server that misbehaves on request."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from proofloop.engine.base import ChatMessage
from proofloop.engine.openai.body import BodyReader
from proofloop.engine.openai.call import OpenAICall
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.engine.openai.stream import split_reasoning
from proofloop.errors import EngineError
from proofloop.schema.records import Tokens
from tests.scripted_openai import Exchange, Script, ScriptedServer, answers, cuts, refuses
from tests.unit.engine.conftest import Connect, Serve, ask, fails_with
from tests.waiting import wait_until

SECRET = "sk-very-secret-0123456789"


# -- the answer
# --------------------------------------------------------------------------------------------------


def test_an_answer_is_gathered_from_its_pieces(connect: Connect) -> None:
    generation = connect(answers("It holds by induction.")).submit(ask()).result(60)
    assert generation.text == "It holds by induction."
    assert (generation.finish_reason, generation.model_version) == ("stop", "prover-7")
    assert (generation.prompt_tokens, generation.completion_tokens) == (7, 3)
    assert generation.tokens is None
    assert 0 < generation.engine_seconds < 5


def test_the_request_carries_the_sampling_and_asks_for_usage(
    serve: Serve, connect: Connect
) -> None:
    server = serve(answers())
    request = ask(seed=5, max_tokens=12, temperature=0.5, top_p=0.9)
    turns = (ChatMessage("system", "You prove."), *request.messages)
    engine = connect(server, extra_body={"top_k": -1})
    engine.submit(replace(request, messages=turns)).result(60)
    assert server.received[0].body == {
        "model": "prover-7",
        "messages": [
            {"role": "system", "content": "You prove."},
            {"role": "user", "content": "Prove it."},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 12,
        "seed": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": -1,
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "prover-7"),
        ({"model": "m"}, "m"),
        ({"models": {"prover-7": "p7"}}, "p7"),
        ({"models": {"x": "y"}}, "prover-7"),
    ],
)
def test_a_version_is_sent_under_its_served_name(
    serve: Serve, connect: Connect, settings: dict[str, Any], expected: str
) -> None:
    server = serve(answers())
    generation = connect(server, **settings).submit(ask()).result(60)
    assert (server.received[0].body["model"], generation.model_version) == (expected, "prover-7")


@pytest.mark.parametrize(("bits", "expected"), [(63, 2**63 - 1), (32, 2**32 - 1), (31, 2**31 - 1)])
def test_seeds_are_cut_to_what_the_server_takes(
    serve: Serve, connect: Connect, bits: int, expected: int
) -> None:
    server = serve(answers())
    connect(server, seed_bits=bits).submit(ask(seed=2**63 - 1)).result(60)
    assert server.received[0].body["seed"] == expected


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thinking_is_kept_apart_from_the_text(connect: Connect, field: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event(choices=[{"delta": {field: "Hmm, "}}])
        exchange.event(choices=[{"delta": {field: "yes."}}])
        exchange.say("Proved.")
        exchange.finish()

    generation = connect(script).submit(ask()).result(60)
    assert (generation.reasoning, generation.text) == ("Hmm, yes.", "Proved.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ("", "plain")),
        ("<think>a</think>\n\nb", ("a", "b")),
        ("a</think>b</think>c", ("a</think>b", "c")),
        ("<think>never ended", ("never ended", "")),
    ],
)
def test_thinking_left_in_the_text_is_moved(text: str, expected: tuple[str, str]) -> None:
    assert split_reasoning("", text, "</think>") == expected


def test_a_line_separator_inside_the_text_ends_no_event(connect: Connect) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.raw(
            f'data: {{"choices": [{{"delta": {{"content": "{text}"}}, "finish_reason":'
            f' "stop"}}]}}\n\n'
        )
        exchange.end()

    text = "\u2200\u03b5 \u2028 \u2203\u03b4"
    assert connect(script).submit(ask()).result(60).text == text


def test_a_server_that_answers_in_one_piece_is_understood(connect: Connect) -> None:
    body = {
        "choices": [
            {"message": {"role": "assistant", "content": "Done."}, "finish_reason": "length"}
        ],
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }
    generation = (
        connect(refuses(200, body, Content_Type="application/json")).submit(ask()).result(60)
    )
    assert (generation.text, generation.finish_reason, generation.completion_tokens) == (
        "Done.",
        "length",
        1,
    )
    assert (generation.prompt_tokens, generation.cached_tokens) == (2, 1)


@pytest.mark.parametrize(("pieces", "tokens"), [(("a ", "b"), 2), (("", 100 * "word "), 125)])
@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"input_tokens": 3},
        {"prompt_tokens": 3, "completion_tokens": None},
        {"prompt_tokens": 3, "completion_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
def test_token_counts_are_estimated_where_the_server_reports_none(
    connect: Connect, pieces: tuple[str, str], tokens: int, usage: dict[str, int] | None
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event(choices=[], usage=usage)
        exchange.say(pieces[0])
        exchange.say(pieces[1], finish_reason="stop")
        exchange.end()

    generation = connect(script).submit(ask()).result(60)
    assert (generation.prompt_tokens, generation.completion_tokens) == (3, tokens)


@pytest.mark.parametrize(
    "pieces", [[b"data: a\n", b"\ndata: b\n\n"], [b"dat", b"a: a\r\n\r\n: ping\n\ndata:b\n"]]
)
def test_events_are_found_however_the_bytes_are_cut(pieces: list[bytes]) -> None:
    reader = BodyReader(100)
    assert [event for piece in pieces for event in reader.feed(piece)] == [b"a", b"b"]


# -- whole answers
# --------------------------------------------------------------------------------------------------

WHOLE = {
    "choices": [
        {
            "message": {"role": "assistant", "content": "Done.", "reasoning_content": "Hm."},
            "finish_reason": "stop",
            "token_ids": [4, 5],
            "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1.0}]},
        }
    ],
    "prompt_token_ids": [1, 2],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2},
}


def test_an_answer_may_come_whole(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(200, WHOLE, Content_Type="application/json"))
    engine = connect(server, stream="never", want_logprobs=True)
    generation = engine.submit(ask()).result(60)
    assert server.received[0].body["stream"] is False
    assert "stream_options" not in server.received[0].body
    assert (generation.reasoning, generation.text, generation.completion_tokens) == (
        "Hm.",
        "Done.",
        2,
    )
    assert generation.tokens == Tokens(
        prompt_ids=(1, 2), completion_ids=(4, 5), logprobs=(-0.5, -1.0)
    )


def test_silence_does_not_end_the_wait_for_a_whole_answer(connect: Connect) -> None:
    def slow(exchange: Exchange) -> None:
        time.sleep(1.0)
        exchange.refuse(200, WHOLE)

    engine = connect(slow, stream="never", idle_timeout_s=0.2)
    assert engine.submit(ask()).result(60).text == "Done."


def test_a_whole_answer_that_never_comes_ends_the_call(serve: Serve, connect: Connect) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.stall_until_client_leaves()

    server = serve(stall)
    engine = connect(server, stream="never", content_timeout_s=0.5, max_attempts=1)
    error = fails_with(engine)
    assert error.retryable and "no whole answer for content_timeout_s = 0.5" in error.problem
    assert server.client_left.wait(30)


def test_a_server_that_streams_all_the_same_is_understood(connect: Connect) -> None:
    assert connect(answers("Fine."), stream="never").submit(ask()).result(60).text == "Fine."


def test_canceling_a_whole_answer_closes_the_connection(serve: Serve, connect: Connect) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.stall_until_client_leaves()

    server = serve(stall)
    call = connect(server, stream="never").submit(ask())
    wait_for_requests(server, 1)
    call.cancel()
    assert call.result(30).finish_reason == "cancelled"
    assert server.client_left.wait(30)


# -- tokens
# --------------------------------------------------------------------------------------------------


def with_tokens(ids: list[int], logprobs: list[float], prompt_ids: list[int] | None) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event(choices=[], prompt_token_ids=prompt_ids)
        for token_id, logprob in zip(ids, logprobs, strict=False):
            exchange.say(
                "x",
                token_ids=[token_id],
                logprobs={"content": [{"token": "x", "logprob": logprob}]},
            )
        exchange.finish(completion_tokens=max(len(ids), len(logprobs)))

    return script


def test_tokens_are_kept_as_sampled(serve: Serve, connect: Connect) -> None:
    server = serve(with_tokens([4, 5], [-0.5, -1.25], [1, 2]))
    generation = connect(server, want_logprobs=True).submit(ask()).result(60)
    assert generation.tokens == Tokens(
        prompt_ids=(1, 2), completion_ids=(4, 5), logprobs=(-0.5, -1.25)
    )
    assert server.received[0].body["logprobs"] and server.received[0].body["return_token_ids"]


@pytest.mark.parametrize(
    ("ids", "logprobs", "prompt_ids"),
    [
        ([4, 5, 6], [-0.5, -1.0], [1]),
        ([4], [-0.5], None),
        ([4], [float("nan")], [1]),
        ([], [], [1]),
    ],
)
def test_no_tokens_unless_every_one_came(
    connect: Connect, ids: list[int], logprobs: list[float], prompt_ids: list[int] | None
) -> None:
    engine = connect(with_tokens(ids, logprobs, prompt_ids), want_logprobs=True)
    assert engine.submit(ask()).result(60).tokens is None


@pytest.mark.parametrize(
    ("temperature", "extra_body", "raw_are_kept"),
    [
        (1.0, {}, True),
        (0.6, {}, False),
        (1.0, {"top_k": 20}, False),
        (1.0, {"repetition_penalty": 1.05}, False),
        (1.0, {"top_k": -1, "repetition_penalty": 1.0, "logit_bias": {}}, True),
    ],
)
def test_raw_logprobs_are_not_taken_for_those_of_a_reshaped_distribution(
    serve: Serve,
    connect: Connect,
    temperature: float,
    extra_body: dict[str, object],
    raw_are_kept: bool,
) -> None:
    server = serve(with_tokens([4], [-0.5], [1]))
    request = ask(temperature=temperature)
    kept = {}
    for kind in ("raw", "processed"):
        engine = connect(server, want_logprobs=True, logprobs_are=kind, extra_body=extra_body)
        kept[kind] = engine.submit(request).result(60).tokens is not None
    assert kept == {"raw": raw_are_kept, "processed": True}


@pytest.mark.parametrize(
    ("settings", "are_kept"),
    [({}, False), ({"send_schema": False}, True), ({"response_format": {"type": "x"}}, False)],
)
def test_logprobs_of_an_answer_that_a_schema_shaped_are_not_kept(
    connect: Connect, settings: dict[str, Any], are_kept: bool
) -> None:
    engine = connect(
        with_tokens([4], [-0.5], [1]), want_logprobs=True, logprobs_are="processed", **settings
    )
    request = replace(ask(), schema={"type": "object"})
    assert (engine.submit(request).result(60).tokens is not None) == are_kept


# -- time
# --------------------------------------------------------------------------------------------------


def test_a_slow_answer_may_take_longer_than_the_idle_timeout(connect: Connect) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(11):
            time.sleep(0.3)
            exchange.say("x")
        exchange.finish()

    generation = connect(trickle, idle_timeout_s=3).submit(ask()).result(60)
    assert generation.text == "x" * 11
    assert generation.engine_seconds > 3


def test_silence_ends_a_call(serve: Serve, connect: Connect) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.begin()
        exchange.say("x")
        exchange.stall_until_client_leaves()

    server = serve(stall)
    error = fails_with(connect(server, idle_timeout_s=0.5))
    assert error.retryable and "idle_timeout_s = 0.5" in str(error)
    wait_for_requests(server, 2)
    assert server.client_left.wait(30)
    # The call, then a probe.
    assert [each.body["max_tokens"] for each in server.received] == [64, 1]


def test_result_times_out_while_the_call_runs_on(connect: Connect) -> None:
    may_answer = threading.Event()

    def slow(exchange: Exchange) -> None:
        may_answer.wait(10)
        answers("late")(exchange)

    call = connect(slow).submit(ask())
    with pytest.raises(TimeoutError):
        call.result(0.05)
    may_answer.set()
    assert call.result(60).text == "late"


# -- failures
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_in_trouble_is_asked_again(serve: Serve, connect: Connect, status: int) -> None:
    server = serve(refuses(status, "busy"), answers("Now."))
    assert connect(server).submit(ask()).result(60).text == "Now."
    assert len(server.received) == 2


def test_retry_after_is_honoured(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(429, "slow down", Retry_After="0.4"), answers())
    connect(server).submit(ask()).result(60)
    assert server.received[1].at_s - server.received[0].at_s >= 0.4


def test_a_wait_that_is_too_long_is_left_to_the_caller(serve: Serve, connect: Connect) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server = serve(refuses(503, "maintenance", Retry_After=later))
    error = fails_with(connect(server))
    assert error.retryable and "longest_wait_s = 60" in str(error)
    assert error.after_s is not None and 3500 < error.after_s <= 3600
    assert len(server.received) == 1


def test_attempts_are_bounded(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(500, {"error": {"message": "out of memory"}}))
    error = fails_with(connect(server))
    assert error.retryable and "out of memory" in str(error) and "max_attempts = 3" in str(error)
    # The last one is a probe.
    assert [each.body["max_tokens"] for each in server.received] == [64, 64, 64, 1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_request_that_can_never_work_is_sent_once(
    serve: Serve, connect: Connect, status: int
) -> None:
    server = serve(refuses(status, {"error": {"message": "too many tokens " * 100}}))
    error = fails_with(connect(server))
    assert not error.retryable
    assert f"status {status}: too many tokens" in error.problem and len(error.problem) < 400
    assert len(server.received) == 1


def ended_without_a_reason(exchange: Exchange) -> None:
    exchange.begin()
    exchange.say("half")
    exchange.end()


def garbled(exchange: Exchange) -> None:
    exchange.begin()
    exchange.raw('data: {"error": "unescaped "quote""}\n\n')
    exchange.end()


def failed_inside(exchange: Exchange) -> None:
    exchange.begin()
    exchange.event(error={"message": "worker died", "code": 500})
    exchange.end()


@pytest.mark.parametrize(
    "broken",
    [cuts("half an ans"), Exchange.hang_up, ended_without_a_reason, garbled, failed_inside],
)
def test_a_broken_stream_is_started_over(serve: Serve, connect: Connect, broken: Script) -> None:
    server = serve(broken, answers("Whole."))
    assert connect(server).submit(ask()).result(60).text == "Whole."
    assert len(server.received) == 2


def test_a_refused_connection_is_a_retryable_error(connect: Connect) -> None:
    with ScriptedServer(answers()) as server:
        pass
    error = fails_with(connect(server, max_attempts=2))
    assert error.retryable and "cannot connect: [Errno 111]" in str(error)


@pytest.mark.parametrize(
    ("reason", "retryable"), [("content_filter", False), ("abort", True), ("moon_phase", False)]
)
def test_finish_reasons_that_are_no_answer(connect: Connect, reason: str, retryable: bool) -> None:
    error = fails_with(connect(answers(reason=reason)))
    assert error.retryable == retryable and f'"{reason}"' in str(error)


def test_fields_a_server_does_not_know_are_left_out_from_then_on(
    serve: Serve, connect: Connect
) -> None:
    def picky(exchange: Exchange) -> None:
        unknown = {"stream_options", "return_token_ids"} & exchange.body.keys()
        if unknown:
            exchange.refuse(422, {"detail": f"Unexpected fields in the request: {min(unknown)}"})
        else:
            answers("Fine.")(exchange)

    server = serve(picky)
    engine = connect(server, want_logprobs=True, max_attempts=1)
    assert [engine.submit(ask()).result(60).text for _ in range(2)] == ["Fine.", "Fine."]
    assert len(server.received) == 4  # two refusals, then two answers


def test_a_complaint_that_only_quotes_the_request_costs_no_field(
    serve: Serve, connect: Connect
) -> None:
    def quoting(exchange: Exchange) -> None:
        exchange.refuse(422, {"detail": [{"msg": "too long", "input": list(exchange.body)}]})

    server = serve(quoting, quoting, answers())
    engine = connect(server)
    assert "status 422" in str(fails_with(engine))
    engine.submit(ask()).result(60)
    assert ["stream_options" in one.body for one in server.received] == [True, False, True]


def test_an_answer_without_end_is_cut(serve: Serve, connect: Connect) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.begin()
        while True:
            exchange.say("x" * 1000)

    server = serve(endless)
    error = fails_with(connect(server, max_answer_bytes=20_000))
    assert not error.retryable and "max_answer_bytes = 20000" in str(error)
    assert server.client_left.wait(30)


def test_an_event_without_end_is_cut(connect: Connect) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.begin()
        while True:
            exchange.raw("x" * 1000)

    assert "max_answer_bytes" in str(fails_with(connect(endless, max_answer_bytes=20_000)))


# -- secrets
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 500])
def test_the_key_is_sent_and_never_told(
    serve: Serve, connect: Connect, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(refuses(status, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}))
    engine = connect(server, api_key=SECRET + "\n")
    error = fails_with(engine)
    assert server.received[0].headers["authorization"] == f"Bearer {SECRET}"
    said = capsys.readouterr()
    assert SECRET not in str(error) + repr(error) + said.out + said.err
    assert "Incorrect API key provided: ***" in str(error)


@pytest.mark.parametrize(
    "settings", [{"api_key": f"{SECRET}\n{SECRET}"}, {"base_url": f"http://me:{SECRET}@host/v1"}]
)
def test_settings_that_are_refused_are_not_repeated(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        OpenAISettings(**({"base_url": "http://host/v1"} | settings))
    assert SECRET not in str(caught.value)


# -- cancelling, many at once, closing
# ---------------------------------------------------------------------------------


def talk_then_stall(exchange: Exchange) -> None:
    exchange.begin()
    exchange.say("The first ")
    exchange.say("words")
    exchange.stall_until_client_leaves()


def wait_for_requests(server: ScriptedServer, count: int) -> None:
    assert wait_until(lambda: len(server.received) >= count, 30), (
        f"{len(server.received)} of {count} requests came"
    )


def test_cancelling_closes_the_connection_and_keeps_what_came(
    serve: Serve, connect: Connect
) -> None:
    server = serve(talk_then_stall)
    call = connect(server).submit(ask())
    assert isinstance(call, OpenAICall)
    assert wait_until(lambda: "".join(call.answer.text) == "The first words", 10)
    call.cancel()
    call.cancel()
    generation = call.result(30)  # the server would stall for two minutes
    assert server.client_left.wait(30)
    assert (generation.finish_reason, generation.text, generation.tokens) == (
        "cancelled",
        "The first words",
        None,
    )
    call.cancel()
    assert call.result() == generation


def test_a_call_without_a_slot_waits_and_can_be_cancelled(serve: Serve, connect: Connect) -> None:
    server = serve(talk_then_stall, answers("Second."))
    engine = connect(server, max_concurrency=1)
    first, second, third = (engine.submit(ask(seed=seed)) for seed in range(3))
    wait_for_requests(server, 1)
    second.cancel()
    assert second.result(30).finish_reason == "cancelled"
    assert len(server.received) == 1
    first.cancel()
    assert third.result(30).text == "Second."


def test_cancelling_while_waiting_for_the_next_attempt(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(503, "busy", Retry_After="30"))
    call = connect(server).submit(ask())
    wait_for_requests(server, 1)
    call.cancel()
    assert call.result(30).finish_reason == "cancelled"


def test_two_hundred_streams_at_once(serve: Serve, connect: Connect) -> None:
    def echo(exchange: Exchange) -> None:
        exchange.begin()
        wait_for_requests(server, 200)  # none ends before all are open
        exchange.say(str(exchange.body["seed"]))
        exchange.finish()

    server = serve(echo)
    engine = connect(server, max_concurrency=256, idle_timeout_s=60)
    calls = [engine.submit(ask(seed=seed)) for seed in range(200)]
    assert [call.result(60).text for call in calls] == [str(seed) for seed in range(200)]


def test_connections_are_used_again(connect: Connect) -> None:
    ports: set[int] = set()

    def script(exchange: Exchange) -> None:
        ports.add(exchange.client_address[1])
        answers()(exchange)

    engine = connect(script)
    for seed in range(3):
        engine.submit(ask(seed=seed)).result(60)
    assert len(ports) == 1


def test_closing_cancels_what_runs(serve: Serve, connect: Connect) -> None:
    server = serve(talk_then_stall)
    engine = connect(server)
    call = engine.submit(ask())
    wait_for_requests(server, 1)
    engine.close()
    engine.close()
    assert call.result(30).finish_reason == "cancelled"
    call.cancel()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(ask())
