"""What a failed attempt means: the whole table of kinds, in every dialect."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from proofloop.engine.openai.failure import FailureKind, Refusal, kind_of_failure

OK = 200

KINDS: list[tuple[int, Any, FailureKind]] = [
    # the status alone
    (400, None, "call"),
    (401, None, "access"),
    (402, None, "balance"),
    (403, None, "access"),
    (404, None, "unusable"),
    (405, None, "unusable"),
    (408, None, "busy"),
    (409, None, "busy"),
    (413, None, "call"),
    (422, None, "call"),
    (425, None, "busy"),
    (429, None, "busy"),
    (500, None, "failed"),
    (501, None, "failed"),
    (502, None, "failed"),
    (503, None, "busy"),
    (504, None, "failed"),
    (529, None, "busy"),
    (204, None, "failed"),
    (302, None, "address"),
    (307, None, "address"),
    # a word under `code` is more exact than the status
    (500, {"code": "context_length_exceeded"}, "call"),
    (400, {"code": "model_not_found"}, "unusable"),
    (400, {"code": "rate_limit_exceeded"}, "busy"),
    (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, "quota"),
    (401, {"code": "invalid_api_key", "type": "invalid_request_error"}, "access"),
    (401, {"code": "invalid_request_error", "type": "authentication_error"}, "access"),
    (402, {"code": "invalid_request_error", "type": "unknown_error"}, "balance"),
    (OK, {"code": 402}, "balance"),
    (400, {"code": "invalid_value", "type": "invalid_request_error"}, "call"),
    (500, {"code": "invalid_value", "type": "invalid_request_error"}, "failed"),
    # after a status of 200: a number, the same as text, a word, a type, a status in words
    (OK, {"code": 400}, "call"),
    (OK, {"code": "400"}, "call"),
    (OK, {"code": 429}, "busy"),
    (OK, {"code": 503, "type": "unavailable_error"}, "busy"),
    (OK, {"code": 500}, "failed"),
    (OK, {"status": 422}, "call"),
    (OK, {"code": "context_length_exceeded"}, "call"),
    (OK, {"code": "content_filter"}, "call"),
    (OK, {"code": "rate_limit_exceeded"}, "busy"),
    (OK, {"code": "server_error"}, "failed"),
    (OK, {"code": None, "type": "BadRequestError"}, "call"),
    (OK, {"type": "exceed_context_size_error"}, "call"),
    (OK, {"type": "RateLimitError"}, "busy"),
    (OK, {"type": "overloaded_error"}, "busy"),
    (OK, {"type": "authentication_error"}, "access"),
    (OK, {"type": "NotFoundError"}, "unusable"),
    (OK, {"error_type": "validation"}, "call"),
    (OK, {"status": "RESOURCE_EXHAUSTED"}, "busy"),
    # what says nothing may pass
    (OK, {"code": 1210}, "failed"),
    (OK, {"code": True, "type": 3}, "failed"),
    (OK, {"code": ["400"]}, "failed"),
    (OK, "out of memory", "failed"),
    (OK, ["x"], "failed"),
    (OK, None, "failed"),
]


@pytest.mark.parametrize(("status", "error", "expected"), KINDS)
def test_every_failure_has_one_kind(status: int, error: Any, expected: FailureKind) -> None:
    assert kind_of_failure(status, error) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, "call"),
        ({"object": "error", "message": "too long", "code": 400}, "failed"),
        ([{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}], "busy"),
        ({"detail": "oops"}, "failed"),
    ],
)
def test_a_refusal_is_weighed_by_its_error_object(body: object, expected: FailureKind) -> None:
    assert Refusal(500, json.dumps(body)).kind == expected


def test_a_page_that_is_not_found_comes_from_no_model_server() -> None:
    assert Refusal(404, "\n<html>nginx</html>").kind == "address"
    assert Refusal(404, '{"detail": "Not Found"}').kind == "unusable"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"error": {"message": "a"}}', "a"),
        ('{"error": "a"}', "a"),
        ('[{"error": {"message": "a"}}]', "a"),
        ('{"detail": [{"loc": ["body", "x"], "msg": "a"}]}', "body.x: a"),
        ('{"message": {"message": {"message": {"message": {"message": "deep"}}}}}', None),
        ("plain", "plain"),
        (
            "<!DOCTYPE html>\n<html><head><title>\n502 Bad Gateway\n</title></head></html>",
            "a web page with the title '502 Bad Gateway'",
        ),
        ("[" * 10_000, None),
        ("[]", None),
        ("9" * 5000, None),
        ("", ""),
    ],
)
def test_the_words_of_the_server_are_found(body: str, expected: str | None) -> None:
    assert Refusal(400, body).message() == (body if expected is None else expected)


def test_a_page_without_the_end_of_its_title_stops_no_other_call() -> None:
    began_s = time.process_time()
    body = "<html><title>" + " " * 60_000
    assert Refusal(502, body).message() == body
    assert time.process_time() - began_s < 1


@pytest.mark.parametrize(
    ("retry_after", "milliseconds", "expected"),
    [
        ("2", None, 2.0),
        ("-1", None, 0.0),
        ("9", "1500", 1.5),
        ("soon", None, None),
        ("5, 10", None, None),
    ],
)
def test_retry_after_is_read(
    retry_after: str, milliseconds: str | None, expected: float | None
) -> None:
    assert Refusal(429, "", retry_after, milliseconds).wait_s() == expected


@pytest.mark.parametrize(
    "date", ["Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 00 Foo 2026", "nan nan nan", "\udcff"]
)
def test_a_date_that_is_none_asks_for_no_wait(date: str) -> None:
    assert Refusal(503, "", date).wait_s() is None


def test_a_date_that_has_passed_asks_for_no_wait_at_all() -> None:
    assert Refusal(503, "", "Wed, 21 Oct 2015 07:28:00 GMT").wait_s() == 0
