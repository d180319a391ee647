"""What OpenAI-compatible servers do that OpenAI's does not, byte by byte, and what the engine makes
of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from proofloop.errors import AccessRefused, CallRefused, EngineError
from tests.scripted_openai import (
    Exchange,
    Script,
    answers,
    chunk,
    cuts,
    depending_on,
    refuses,
    sends,
    sends_raw,
)
from tests.unit.engine.conftest import Connect, Serve, ask, fails_with
from tests.waiting import wait_until

STOP = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"
POISON = "POISON"


# -- answers in other dialects
# -----------------------------------------------------------------------------------------

WHOLE = {
    "choices": [{"message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}]
}
EVENTS = chunk({"content": "Do"}) + chunk({"content": "ne."}) + STOP
READABLE = {
    "last event without a line break": sends((chunk({"content": "Done."}) + STOP).rstrip(b"\n")),
    "carriage returns": sends((EVENTS + DONE).replace(b"\n", b"\r")),
    "both": sends((EVENTS + DONE).replace(b"\n", b"\r\n")),
    "byte order mark": sends(b"\xef\xbb\xbf" + EVENTS + DONE),
    "comments and other fields": sends(
        b": hi\n\nevent: message\nid: 1\n" + EVENTS + b": bye\n" + DONE
    ),
    "events as JSON": sends(EVENTS + DONE, "application/json"),
    "events as text": sends(EVENTS + DONE, "text/plain"),
    "events without a type": sends(EVENTS + DONE, ""),
    "JSON": sends(json.dumps(WHOLE).encode(), "application/json"),
    "JSON as text": sends(b"\n " + json.dumps(WHOLE, indent=1).encode(), "text/plain"),
    "JSON as events": sends(json.dumps(WHOLE).encode()),
    "parts": sends(
        chunk({"content": [{"type": "text", "text": "Do"}, {"type": "text", "text": "ne."}]}) + STOP
    ),
    "refusal as text": sends(chunk({"content": None, "refusal": "Done."}) + STOP),
    "finish reason in capitals": sends(chunk({"content": "Done."}, "STOP")),
    "fields of odd types": sends(
        chunk({"content": "Done.", "reasoning": {}}, usage="none", token_ids="", logprobs=[]) + STOP
    ),
    "no error": sends(chunk({"content": "Done."}, error=None) + STOP),
}


@pytest.mark.parametrize("script", READABLE.values(), ids=READABLE.keys())
def test_an_answer_in_another_dialect_is_read(connect: Connect, script: Script) -> None:
    generation = connect(script, max_attempts=1).submit(ask()).result(60)
    assert (generation.text, generation.finish_reason) == ("Done.", "stop")


def test_thinking_among_the_parts_is_kept_apart(connect: Connect) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hmm."}]}
    script = sends(chunk({"content": [thinking, {"type": "text", "text": "Done."}]}) + STOP)
    generation = connect(script).submit(ask()).result(60)
    assert (generation.reasoning, generation.text) == ("Hmm.", "Done.")


def test_halves_of_a_surrogate_pair_find_each_other(connect: Connect) -> None:
    body = chunk({"content": "field \ud835"}) + chunk({"content": "\udd3d, lone \ud835."}) + STOP
    assert b"\\ud835" in body
    generation = connect(sends(body)).submit(ask()).result(60)
    assert generation.text == "field \U0001d53d, lone \ufffd."


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_an_answer_of_reasoning_alone_is_kept_and_warned_of_once(
    connect: Connect, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = connect(sends(chunk({"content": None, field: "All of it."}) + STOP))
    for _ in range(2):
        generation = engine.submit(ask()).result(60)
        assert (generation.text, generation.reasoning) == ("", "All of it.")
    said = capsys.readouterr().out
    assert said.count("engine_answer_all_reasoning") == 1 and "reasoning_content" in said


def test_a_check_of_one_token_is_not_warned_of(
    connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = connect(sends(chunk({"reasoning_content": "Hm"}, "length")))
    engine.submit(ask(max_tokens=1)).result(60)
    assert "engine_answer_all_reasoning" not in capsys.readouterr().out


# -- no finish reason
# --------------------------------------------------------------------------------------------------


def test_an_answer_without_a_finish_reason_counts_as_cut(connect: Connect) -> None:
    error = fails_with(connect(sends(chunk({"content": "Done."}) + DONE)))
    assert error.retryable and "without a finish reason" in error.problem
    assert "needs_finish_reason = false" in error.hint


@pytest.mark.parametrize(("completion_tokens", "expected"), [(3, "stop"), (64, "length")])
def test_a_server_may_need_no_finish_reason(
    connect: Connect, completion_tokens: int, expected: str
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": completion_tokens}
    script = sends(chunk({"content": "Done."}, usage=usage) + DONE)
    generation = connect(script, needs_finish_reason=False).submit(ask()).result(60)
    assert (generation.text, generation.finish_reason) == ("Done.", expected)


def test_a_cut_stream_is_no_answer_though_no_finish_reason_is_needed(connect: Connect) -> None:
    error = fails_with(connect(sends(chunk({"content": "Done."})), needs_finish_reason=False))
    assert error.retryable and "was cut after 5 characters" in error.problem


# -- signs of life
# --------------------------------------------------------------------------------------------------


def keeps_alive(seconds: float) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            exchange.raw(": keep-alive\n\n")
            time.sleep(0.1)
        exchange.say("Late.")
        exchange.finish()

    return script


def test_a_comment_is_a_sign_of_life(connect: Connect) -> None:
    engine = connect(keeps_alive(2.0), idle_timeout_s=1.0)
    assert engine.submit(ask()).result(60).text == "Late."


def test_comments_alone_keep_no_call_alive_for_ever(serve: Serve, connect: Connect) -> None:
    server = serve(keeps_alive(30))
    error = fails_with(connect(server, idle_timeout_s=1.0, content_timeout_s=2.0))
    assert error.retryable and "content_timeout_s = 2" in error.problem
    assert server.client_left.wait(30)


def test_a_call_that_is_always_silent_fails_alone(serve: Serve, connect: Connect) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.begin()
        exchange.stall_until_client_leaves()

    server = serve(depending_on(POISON, stall, answers()))
    error = fails_with(connect(server, idle_timeout_s=1.0, max_attempts=2), POISON)
    assert isinstance(error, CallRefused) and "idle_timeout_s = 1; attempt 2" in error.problem


# -- a call that always fails
# ------------------------------------------------------------------------------------------


ALWAYS = {
    "500": refuses(500, {"error": {"message": "template error", "code": 500}}),
    "502": refuses(502, "<html>Bad gateway</html>"),
    "cut": cuts("half an ans"),
    "cut early": Exchange.hang_up,
    "error event": sends(
        chunk({"content": "a"}) + b'data: {"error": {"message": "worker died", "code": "oops"}}\n\n'
    ),
    "no finish reason": sends(chunk({"content": "Done."}) + DONE),
    "aborted": answers(reason="abort"),
    "web page": sends(b"<html>blocked</html>", "text/html"),
    "nothing": sends(b""),
    "cut JSON": sends(b'{"choices": [{"mess', "application/json"),
}


@pytest.mark.parametrize("bad", ALWAYS.values(), ids=ALWAYS.keys())
def test_a_call_that_always_fails_is_given_up_while_the_server_answers_others(
    serve: Serve, connect: Connect, bad: Script
) -> None:
    server = serve(depending_on(POISON, bad, answers("Fine.")))
    engine = connect(server)
    assert engine.submit(ask()).result(60).text == "Fine."
    error = fails_with(engine, POISON)
    assert isinstance(error, CallRefused)
    assert "attempt 3 of max_attempts = 3, while the server answers other calls" in error.problem
    poisoned = [POISON in str(each.body) for each in server.received]
    assert poisoned == [False, True, True, True, False]  # the last one is the probe


@pytest.mark.parametrize("bad", [ALWAYS["500"], ALWAYS["cut"], ALWAYS["web page"]])
def test_a_server_that_answers_nothing_any_more_is_away(
    serve: Serve, connect: Connect, bad: Script
) -> None:
    server = serve(answers("Fine."), bad)
    engine = connect(server)
    engine.submit(ask()).result(60)
    error = fails_with(engine)
    assert error.retryable and "attempt 3 of max_attempts = 3" in error.problem


@pytest.mark.parametrize("status", [429, 503])
def test_a_call_refused_as_busy_by_an_idle_server_is_given_up_after_a_long_time(
    serve: Serve, connect: Connect, status: int
) -> None:
    server = serve(depending_on(POISON, refuses(status, "busy"), answers()))
    error = fails_with(connect(server, longest_wait_s=0.1, longest_busy_s=1.0), POISON)
    assert (
        isinstance(error, CallRefused)
        and error.cause == f"the server answered with status {status}"
    )
    poisoned = [
        asked.at_s for asked in server.received if POISON in asked.body["messages"][0]["content"]
    ]
    assert len(poisoned) > 3 and poisoned[-1] - poisoned[0] >= 0.8


def test_load_fails_no_call(serve: Serve, connect: Connect) -> None:
    """Most of these calls use up their attempts while those that the server took are answered one
    after another.
    """
    server = serve(takes_at_most(2, answer_s=0.25))
    engine = connect(server, max_concurrency=6, longest_wait_s=0.05, longest_busy_s=0.01)
    left, loads = {seed: engine.submit(ask(seed=seed)) for seed in range(16)}, 0
    while left:
        for seed, call in list(left.items()):
            try:
                assert call.result(60).text == "Fine."
                del left[seed]
            except EngineError as error:
                assert error.retryable and error.is_load
                left[seed], loads = engine.submit(ask(seed=seed)), loads + 1
    assert loads > 0


def test_a_call_that_is_refused_as_busy_while_another_is_in_flight_is_load(
    connect: Connect,
) -> None:
    begun, failed = threading.Event(), threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.begin()
        exchange.say("Fine.")
        if exchange.body["max_tokens"] > 1:
            begun.set()
            failed.wait(60)
        exchange.finish()

    engine = connect(
        depending_on(POISON, refuses(503, "busy"), answer), longest_busy_s=0.01, idle_timeout_s=60.0
    )
    other = engine.submit(ask("Another."))
    assert begun.wait(60)
    error = fails_with(engine, POISON)
    failed.set()
    assert error.retryable and error.is_load
    assert other.result(60).text == "Fine."


def test_a_server_that_is_busy_for_a_probe_too_is_load(connect: Connect) -> None:
    error = fails_with(connect(refuses(503, "busy"), longest_busy_s=0.01))
    assert error.retryable and error.is_load


def takes_at_most(calls: int, answer_s: float) -> Script:
    """Refuses what is more as busy."""
    places = threading.Semaphore(calls)

    def script(exchange: Exchange) -> None:
        if not places.acquire(blocking=False):
            return exchange.refuse(503, "busy")
        try:
            exchange.begin()
            exchange.say("Fine.")
            time.sleep(answer_s if exchange.body["max_tokens"] > 1 else 0.0)
            exchange.finish()
        finally:
            places.release()

    return script


def sends_in_turn(turns: Iterator[int], *scripts: Script) -> Script:
    """One script after the other, the last for ever."""
    return lambda exchange: scripts[min(next(turns), len(scripts) - 1)](exchange)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_one_call_alone_fails_no_other(
    serve: Serve, connect: Connect, status: int
) -> None:
    """A gateway's moderation answers 403, for one prompt, while it takes the key."""
    server = serve(depending_on(POISON, refuses(status, "flagged"), answers("Fine.")))
    engine = connect(server)
    engine.submit(ask()).result(60)
    assert isinstance(fails_with(engine, POISON), CallRefused)
    assert engine.submit(ask()).result(60).text == "Fine."


def test_a_used_up_balance_fails_no_call_though_a_probe_is_answered(connect: Connect) -> None:
    insufficient = {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}
    engine = connect(depending_on(POISON, refuses(402, insufficient), answers("Fine.")))
    engine.submit(ask()).result(60)
    error = fails_with(engine, POISON)
    assert not isinstance(error, CallRefused | AccessRefused) and not error.retryable
    assert "Insufficient Balance" in error.problem and "--resume" in error.hint


QUOTA = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}


def test_a_used_up_quota_ends_the_run_instead_of_being_retried_for_ever(connect: Connect) -> None:
    quick = {"max_attempts": 2, "first_wait_s": 0.01}
    engine = connect(answers(), refuses(429, QUOTA), **quick)
    engine.submit(ask()).result(60)
    error = fails_with(engine)
    assert not error.retryable and not isinstance(error, CallRefused)
    assert "You exceeded your current quota" in error.problem and "run again" in error.hint


def test_a_quota_that_a_minute_refills_is_retried(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(429, QUOTA), refuses(429, QUOTA), answers("Fine."))
    assert connect(server, max_attempts=3, first_wait_s=0.01).submit(ask()).result(60).text


def test_the_end_of_an_old_stream_is_no_answer_to_another_call(connect: Connect) -> None:
    """The server has stopped taking calls, and its old streams end while others wait for a probe's
    answer.
    """
    old_ends = threading.Event()

    def old(exchange: Exchange) -> None:
        exchange.begin()
        exchange.say("Old.")
        old_ends.wait(20)
        exchange.finish()

    def probe(exchange: Exchange) -> None:
        old_ends.set()
        time.sleep(1.0)
        exchange.refuse(500, "out of order")

    def new(exchange: Exchange) -> None:
        (probe if exchange.body["max_tokens"] == 1 else refuses(500, "out of order"))(exchange)

    engine = connect(depending_on("Prove it.", old, new), max_attempts=1)
    running = engine.submit(ask())
    error = fails_with(engine, "Another.")
    assert running.result(60).text == "Old."
    assert error.retryable


def test_what_had_come_of_a_call_that_always_fails_is_handed_over(connect: Connect) -> None:
    cut = cuts("## Solution\n\nLet ")
    error = fails_with(connect(depending_on(POISON, cut, answers())), POISON)
    assert isinstance(error, CallRefused) and error.partial == "## Solution\n\nLet "
    assert error.cause == "the stream was cut"


def test_a_call_that_always_fails_costs_what_the_server_counted_of_all_attempts(
    connect: Connect,
) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    aborted = sends(chunk({"content": "Done."}) + chunk({}, "abort", usage=usage))
    error = fails_with(connect(depending_on(POISON, aborted, answers())), POISON)
    assert (error.prompt_tokens, error.completion_tokens) == (21, 9)
    assert error.engine_seconds > 0


def test_attempts_without_a_piece_of_an_answer_cost_nothing(connect: Connect) -> None:
    error = fails_with(connect(refuses(500, "out of order")))
    assert (error.prompt_tokens, error.completion_tokens, error.engine_seconds) == (0, 0, 0.0)


def test_a_filtered_answer_costs_its_tokens(connect: Connect) -> None:
    error = fails_with(connect(answers(reason="content_filter")))
    assert (
        isinstance(error, CallRefused) and error.completion_tokens == 3 and error.engine_seconds > 0
    )


def test_many_calls_share_a_probe(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(500, "out of order"))
    engine = connect(server, max_attempts=1)
    calls = [engine.submit(ask(seed=seed)) for seed in range(8)]
    for call in calls:
        with pytest.raises(EngineError):
            call.result(60)
    probes = [each for each in server.received if each.body["max_tokens"] == 1]
    assert len(server.received) - len(probes) == 8 and 1 <= len(probes) < 8


# -- errors after a status of 200
# --------------------------------------------------------------------------------------

TOO_LONG = "The input (12345 tokens) is longer than the model's context length (8192 tokens)."
CALL_ERRORS: dict[str, Any] = {
    "SGLang": {
        "error": {"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": 400}
    },
    "SGLang, bare": {
        "object": "error",
        "message": TOO_LONG,
        "type": "BadRequestError",
        "code": 400,
    },
    "LightLLM": {"error": {"message": TOO_LONG, "code": "400"}},
    "OpenAI": {
        "error": {
            "message": TOO_LONG,
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
        }
    },
    "llama.cpp": {"error": {"message": TOO_LONG, "type": "exceed_context_size_error", "code": 400}},
    "TGI": {"error": TOO_LONG, "error_type": "validation"},
    "Gemini": [{"error": {"message": TOO_LONG, "code": 400, "status": "INVALID_ARGUMENT"}}],
}


@pytest.mark.parametrize("error", CALL_ERRORS.values(), ids=CALL_ERRORS.keys())
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_refusal_after_a_status_of_200_is_about_the_call(
    serve: Serve, connect: Connect, error: Any, is_stream: bool
) -> None:
    text = json.dumps(error).encode()
    server = serve(sends(b"data: " + text + b"\n\n" + DONE if is_stream else text))
    found = fails_with(connect(server))
    assert isinstance(found, CallRefused) and TOO_LONG in found.problem
    assert len(server.received) == 1


def test_an_old_llama_cpp_sends_errors_in_a_field_of_their_own(
    serve: Serve, connect: Connect
) -> None:
    server = serve(sends(b'error: {"code": 400, "message": "too long"}\n\n'))
    error = fails_with(connect(server))
    assert isinstance(error, CallRefused) and "too long" in error.problem


def test_a_rate_limit_in_an_event_is_waited_for(connect: Connect) -> None:
    event = b'data: {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}\n\n'
    assert connect(sends(event), answers("Now.")).submit(ask()).result(60).text == "Now."


# -- errors that help
# --------------------------------------------------------------------------------------------------


def test_a_web_page_in_place_of_an_answer_is_described(serve: Serve, connect: Connect) -> None:
    server = serve(sends(b"<!DOCTYPE html><html>Please sign in</html>", "text/html"))
    error = fails_with(connect(server))
    assert not error.retryable
    assert (
        "status 200, content type text/html, begins with: <!DOCTYPE html><html>Please"
        in error.problem
    )
    assert "sign-in page or a proxy" in error.hint
    assert len(server.received) == 1


def test_JSON_that_is_no_completion_is_described(serve: Serve, connect: Connect) -> None:
    server = serve(sends(b'{"status": "ok"}', "application/json"))
    error = fails_with(connect(server, base_url=server.base_url.removesuffix("/v1")))
    assert not error.retryable and '{"status": "ok"}' in error.problem
    assert "has no /v1: try base_url = 'http://127.0.0.1:" in error.hint


def test_a_redirect_names_where_it_leads(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(307, "", Location="https://host/api/v1/chat/completions?token=secret"))
    error = fails_with(connect(server))
    assert not error.retryable and "status 307" in error.problem
    assert "set base_url = 'https://host/api/v1'" in error.hint and "secret" not in str(error)


def test_an_address_without_v1_is_named(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(404, {"detail": "Not Found"}), models=["prover-7"])
    error = fails_with(connect(server, base_url=server.base_url.removesuffix("/v1")))
    assert f"try base_url = {server.base_url!r}" in error.hint


@pytest.mark.parametrize(("status", "code"), [(404, "model_not_found"), (400, None)])
def test_a_wrong_model_lists_those_of_the_server(
    serve: Serve, connect: Connect, status: int, code: str | None
) -> None:
    body = {"error": {"message": "The model `prover-7` does not exist.", "code": code}}
    error = fails_with(connect(serve(refuses(status, body), models=["small", "large"])))
    assert not error.retryable
    assert "the run asks for 'prover-7', the server has: large, small" in error.hint


def test_a_key_that_is_missing_or_wrong_is_named_by_its_variable(
    serve: Serve, connect: Connect
) -> None:
    server = serve(refuses(401, {"error": {"message": "No key."}}))
    missing, wrong = fails_with(connect(server)), fails_with(connect(server, api_key="sk-1"))
    assert isinstance(missing, AccessRefused) and isinstance(wrong, AccessRefused)
    assert missing.hint == "set PROOFLOOP_OPENAI_API_KEY to a key of this server"
    assert (
        wrong.hint == "the server does not accept the key in PROOFLOOP_OPENAI_API_KEY: correct it"
    )


VLLM_SEED = {
    "error": {"message": "[{'loc': ('body', 'seed'), 'msg': 'less than or equal to 2147483647'}]"}
}
FASTAPI_SEED = {
    "detail": [{"loc": ["body", "seed"], "msg": "Input should be less than 2147483648"}]
}
OTHER_FIELD = {"detail": [{"loc": ["body", "messages"], "msg": "too long", "input": {"seed": 5}}]}


@pytest.mark.parametrize(
    ("status", "body", "is_named"),
    [(400, VLLM_SEED, True), (422, FASTAPI_SEED, True), (422, OTHER_FIELD, False)],
)
def test_a_server_that_refuses_large_seeds_is_told_from_others(
    connect: Connect, status: int, body: object, is_named: bool
) -> None:
    error = fails_with(connect(refuses(status, body)))
    assert ("set seed_bits = 31" in error.hint) == is_named


REFUSED_LENGTHS = {
    "vLLM": "This model's maximum context length is 8192 tokens. However, you requested 66036"
    " tokens (500 in the messages, 65536 in the completion).",
    "vLLM 0.10": "'max_tokens' or 'max_completion_tokens' is too large: 65536. This model's maximum"
    " context length is 8192 tokens and your request has 500 input tokens.",
    "SGLang": "Requested token count exceeds the model's maximum context length of 8192 tokens.",
    "OpenAI": "max_tokens is too large: 65536. This model supports at most 16384 completion tokens",
    "llama.cpp": "the request exceeds the available context size. try increasing the context size",
    "Ollama": "input length exceeds maximum context length",
    "LM Studio": "the model is loaded with context length of only 4096 tokens",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.",
    "DeepSeek": "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
}


@pytest.mark.parametrize("message", REFUSED_LENGTHS.values(), ids=REFUSED_LENGTHS)
def test_a_refused_length_names_max_tokens(connect: Connect, message: str) -> None:
    error = fails_with(connect(refuses(400, {"error": {"message": message}})))
    assert error.hint == (
        "the prompt and max_tokens = 64 together exceed the server's limit: lower max_tokens under"
        " [sampling.ROLE], or serve the model with a longer context"
    )


def test_a_server_without_max_tokens_is_told_from_one_with_a_limit(connect: Connect) -> None:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with o3-2025. Use"
        " 'max_completion_tokens' instead."
    )
    error = fails_with(connect(refuses(400, {"error": {"message": message}})))
    assert "max_tokens_field" in error.hint


def test_a_refused_field_can_be_omitted(serve: Serve, connect: Connect) -> None:
    message = "Unsupported parameter: 'top_p' is not supported with this model."
    error = fails_with(connect(refuses(400, {"error": {"message": message}})))
    assert 'omit_fields = ["top_p"]' in error.hint
    server = serve(answers())
    connect(server, omit_fields=["top_p", "seed"]).submit(ask()).result(60)
    assert {"top_p", "seed", "temperature"} & server.received[0].body.keys() == {"temperature"}


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("You exceeded your current quota, please check your plan and billing", "quota is used up"),
        ("Come back tomorrow", "raise longest_wait_s"),
        ("Slow down", "raise longest_wait_s"),
    ],
)
def test_a_rate_limit_that_no_short_wait_ends_has_its_own_way_out(
    connect: Connect, message: str, hint: str
) -> None:
    refused = refuses(429, {"error": {"message": message}}, Retry_After="86400")
    assert hint in fails_with(connect(refused)).hint


def test_a_long_complaint_hides_neither_the_attempt_nor_the_way_out(connect: Connect) -> None:
    error = fails_with(connect(refuses(500, "x" * 5000), max_attempts=1))
    assert error.problem.endswith("attempt 1 of max_attempts = 1") and len(error.problem) < 400


def test_an_error_cannot_write_to_the_terminal(connect: Connect) -> None:
    error = fails_with(connect(refuses(400, {"message": "\x1b[31mred \ud800"})))
    assert "\x1b" not in str(error) and "red" in str(error)
    str(error).encode()


def test_a_response_format_is_sent(serve: Serve, connect: Connect) -> None:
    server = serve(answers())
    connect(server, response_format={"type": "json_object"}).submit(ask()).result(60)
    assert server.received[0].body["response_format"] == {"type": "json_object"}


def test_the_schema_of_a_request_is_sent_unless_a_setting_says_otherwise(
    serve: Serve, connect: Connect
) -> None:
    schema = {"type": "object", "properties": {"score": {"type": "number"}}}
    with_schema, server = replace(ask(), schema=schema), serve(answers())
    plain = {"type": "json_object"}
    for settings in ({}, {"response_format": plain}, {"send_schema": False}):
        connect(server, **settings).submit(with_schema).result(60)
    connect(server).submit(ask()).result(60)
    strict = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }
    assert [each.body.get("response_format") for each in server.received] == [
        strict,
        plain,
        None,
        None,
    ]


def test_a_server_that_takes_no_schema_is_answered_with_the_way_out(connect: Connect) -> None:
    error = fails_with(
        connect(refuses(400, {"message": "response_format: json_schema is not supported"}))
    )
    assert "send_schema = false" in (error.hint or "")


def test_a_prompt_with_half_a_character_is_sent(serve: Serve, connect: Connect) -> None:
    server = serve(answers("Fine."))
    assert connect(server).submit(ask("half \ud835")).result(60).text == "Fine."


# -- bytes that are no HTTP
# -------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
NO_HTTP = {
    "nothing": b"",
    "an unknown version": b"HTTP/9.9 banana\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "binary": bytes(range(256)),
    "a body that is shorter than its length": HEAD
    + b"Content-Length: 999\r\n\r\n"
    + chunk({"content": "x"}),
    "a chunk without a size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a length that is no number": HEAD + b"Content-Length: many\r\n\r\n",
    "a broken gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    "an unknown encoding": HEAD + b"Content-Encoding: rot13\r\nContent-Length: 4\r\n\r\nabcd",
    "a header without end": HEAD + b"X: " + b"y" * 200_000,
    "another protocol from now on": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    ),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a status that is none": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    "a redirect to nowhere": (
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"
    ),
    "headers of odd letters": HEAD
    + b"Retry-After: \xff\r\nx-ratelimit-reset-tokens: \xfe\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("data", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_bytes_that_are_no_HTTP_are_an_error_of_ours(connect: Connect, data: bytes) -> None:
    error = fails_with(connect(sends_raw(data), max_attempts=1))
    assert type(error) is EngineError and error.problem.startswith("127.0.0.1:")


def test_a_last_event_counts_though_the_connection_breaks_right_after_it(connect: Connect) -> None:
    last = (chunk({"content": "Done."}) + STOP).rstrip(b"\n")
    data = HEAD + b"Content-Length: 9999\r\n\r\n" + last
    assert connect(sends_raw(data), max_attempts=1).submit(ask()).result(60).text == "Done."


# -- rate_limiter
# --------------------------------------------------------------------------------------------------


def test_requests_are_held_to_so_many_a_minute(serve: Serve, connect: Connect) -> None:
    server = serve(answers())
    engine = connect(server, requests_per_minute=300)  # one every 0.2 s, after a burst of five
    for call in [engine.submit(ask(seed=seed)) for seed in range(8)]:
        call.result(60)
    took_s = server.received[-1].at_s - server.received[0].at_s
    assert 1.3 <= took_s < 10


def test_a_server_that_asks_to_wait_holds_back_all_calls(serve: Serve, connect: Connect) -> None:
    server = serve(refuses(429, "slow down", Retry_After="0.6"), answers())
    engine = connect(server)
    with structlog.testing.capture_logs() as logs:
        first = engine.submit(ask())
        assert wait_until(lambda: bool(logs))  # the engine has read the refusal
    engine.submit(ask("Another.")).result(60)
    first.result(60)
    assert server.received[1].at_s - server.received[0].at_s >= 0.6


def test_a_server_that_has_no_requests_left_is_waited_for(serve: Serve, connect: Connect) -> None:
    def last_one(exchange: Exchange) -> None:
        exchange.begin(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="500ms")
        exchange.say("Yes.")
        exchange.finish()

    server = serve(last_one, answers())
    engine = connect(server)
    for seed in range(2):
        engine.submit(ask(seed=seed)).result(60)
    assert server.received[1].at_s - server.received[0].at_s >= 0.5
