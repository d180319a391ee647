"""Classifies failed attempts: takes the server's response and returns a `FailureKind`. No I/O.

The kind alone decides the engine's next step. Servers report the same failure as an HTTP status, as
a number or a word under `code`, or as a word under `type`; some send it with status 200.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from typing import Literal

from proofloop.errors import CallRefused, EngineError

FailureKind = Literal[
    "busy", "quota", "failed", "silent", "address", "call", "access", "balance", "unusable"
]
"""busy: the server is overloaded, loading or unavailable; the call is not to blame.
quota: the account's quota is used up: for a minute at some servers, for good at others.
failed: this attempt failed, perhaps because of the call itself: status 500, a cut stream.
silent: the server sent nothing until the timeout.
address: the address is not a chat completions API: a web page, a redirect.
call: the server will never answer this call, but answers others.
access: the server does not accept the key.
balance: the account's balance is too low.
unusable: the server cannot answer any call of this run: a wrong model.
"""

BUSY_STATUS = frozenset({408, 409, 425, 429, 503, 529})
BAD_REQUEST = frozenset({400, 422})  # also for an unknown field
CALL_STATUS = BAD_REQUEST | {413}  # usually: the prompt is too long
ACCESS_STATUS = frozenset({401, 403})
ANY_ERROR_STATUS = range(400, 600)
# Optional fields: the engine can do without them.
DROPPABLE_FIELDS = (
    "stream_options",
    "return_token_ids",
)
TITLE = re.compile(r"\A\s*<.*?<title>([^<]*)</title>", re.IGNORECASE | re.DOTALL)
"""A web page, mostly of a proxy before the server."""
STREAM_CUT = "the stream was cut"
DEEPEST_MESSAGE = 4  # the deepest nesting of objects in which to look for the error message

KIND_OF_WORD: Mapping[str, FailureKind] = {
    "contextlengthexceeded": "call",
    "contextwindowexceeded": "call",
    "exceedcontextsize": "call",
    "stringabovemaxlength": "call",
    "invalidprompt": "call",
    "invalidrequest": "call",
    "invalidargument": "call",
    "invalidparameter": "call",
    "badrequest": "call",
    "unprocessableentity": "call",
    "validation": "call",
    "contentfilter": "call",
    "contentpolicyviolation": "call",
    "ratelimit": "busy",
    "ratelimitexceeded": "busy",
    "toomanyrequests": "busy",
    "insufficientquota": "quota",
    "overloaded": "busy",
    "engineoverloaded": "busy",
    "unavailable": "busy",
    "serviceunavailable": "busy",
    "resourceexhausted": "busy",
    "invalidapikey": "access",
    "authentication": "access",
    "unauthorized": "access",
    "unauthenticated": "access",
    "permission": "access",
    "permissiondenied": "access",
    "insufficientbalance": "balance",
    "insufficientcredits": "balance",
    "paymentrequired": "balance",
    "modelnotfound": "unusable",
    "notfound": "unusable",
}
"""Error codes and types in lower case, without punctuation and a final "error"."""


def kind_of_failure(status: int, error: object = None) -> FailureKind:
    """Classify an HTTP status with the server's error object. A word under `code` overrides the
    status, except for 401 and 402: DeepSeek sends `invalid_request_error` with both.
    """
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED):
        return _kind_of_status(status)
    code, kind = _field(error, "code"), _field(error, "type") or _field(error, "error_type")
    if known := _kind_of_word(code):
        return known
    if status == HTTPStatus.OK:
        status = _status(code) or _status(_field(error, "status")) or status
    if status in ANY_ERROR_STATUS:
        return _kind_of_status(status)
    if 300 <= status < 400:
        return "address"
    return _kind_of_word(kind) or _kind_of_word(_field(error, "status")) or "failed"


def _kind_of_status(status: int) -> FailureKind:
    if status in BUSY_STATUS:
        return "busy"
    if status in CALL_STATUS:
        return "call"
    if status in ACCESS_STATUS:
        return "access"
    if status == HTTPStatus.PAYMENT_REQUIRED:
        return "balance"
    return "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "unusable"


def _kind_of_word(value: object) -> FailureKind | None:
    if not isinstance(value, str):
        return None
    return KIND_OF_WORD.get(re.sub("[^a-z]", "", value.lower()).removesuffix("error"))


def _status(value: object) -> int:
    """The HTTP status in an error object, a number or text; 0 for any other value."""
    text = str(value) if isinstance(value, int | str) else ""
    return int(text) if re.fullmatch("[45][0-9][0-9]", text) else 0


def _field(error: object, name: str) -> object:
    return error.get(name) if isinstance(error, dict) else None


class AttemptFailed(Exception):
    """One attempt failed. `wait_s` is the wait that the server requested, if any.

    `cause` is the problem without details of the single call; by default the problem itself.
    """

    def __init__(
        self,
        kind: FailureKind,
        problem: str,
        *,
        wait_s: float | None = None,
        hint: str = "",
        cause: str = "",
    ) -> None:
        super().__init__(problem)
        self.kind, self.problem, self.wait_s, self.hint = kind, problem, wait_s, hint
        self.cause = cause or problem

    def unavailable(self, problem: str) -> EngineError:
        """The error of a server that cannot answer now."""
        return EngineError(
            problem,
            retryable=True,
            after_s=self.wait_s,
            hint=self.hint,
            cause=self.cause,
            is_load=self.kind in ("busy", "quota"),
        )

    def permanent(self, problem: str) -> EngineError:
        """The error of a server that will not answer."""
        return EngineError(problem, retryable=False, hint=self.hint, cause=self.cause)

    def refused(self, problem: str) -> CallRefused:
        """The error of a server that will not answer this call."""
        return CallRefused(problem, hint=self.hint, cause=self.cause)


@dataclass(frozen=True)
class Refusal:
    """A response with a status other than 200. `text` is its body, not yet redacted."""

    status: int
    text: str
    retry_after: str | None = None
    retry_after_ms: str | None = None

    @property
    def kind(self) -> FailureKind:
        if self.status == HTTPStatus.NOT_FOUND and self.text.lstrip().startswith("<"):
            return "address"
        return kind_of_failure(self.status, self._error)

    def unknown_fields(self, sent: Collection[str]) -> set[str]:
        """The optional fields of the request that the error text names."""
        if self.status not in BAD_REQUEST:
            return set()
        return {name for name in DROPPABLE_FIELDS if name in sent and name in self.text}

    def names(self, field: str) -> bool:
        """Whether the error is about this field; its text may quote others."""
        complaint = (
            f"{self.message()} {_places(_field(self._body, 'detail'))}"
            f" {_field(self._error, 'param')}"
        )
        return self.status in BAD_REQUEST and re.search(rf"\b{field}\b", complaint) is not None

    def wait_s(self) -> float | None:
        """The seconds of Retry-After, which may also be a date; None without a valid value."""
        if (milliseconds := _number(self.retry_after_ms)) is not None:
            return milliseconds / 1000
        if (seconds := _number(self.retry_after)) is not None:
            return seconds
        return _seconds_until(self.retry_after) if self.retry_after else None

    def message(self) -> str:
        """The server's error message, from whichever field it uses."""
        if page := TITLE.search(self.text):
            return f"a web page with the title {page[1].strip()!r}"
        return find_message(self._body) or self.text

    @cached_property
    def _body(self) -> object:
        return _only(read_json(self.text))

    @property
    def _error(self) -> object:
        """The error object: under `error`, or the whole body."""
        error = _field(self._body, "error")
        return error if isinstance(error, dict) else self._body


def read_json(text: str) -> object:
    """The JSON value; None for invalid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _only(body: object) -> object:
    """The first element of a list: Gemini sends its error object in one."""
    return body[0] if isinstance(body, list) and body else body


def find_message(body: object, depth: int = DEEPEST_MESSAGE) -> str:
    """The error message: OpenAI's error.message, or error, message, detail, or the first of
    FastAPI's list, with its field.
    """
    body = _only(body)
    if isinstance(body, str):
        return body
    if not isinstance(body, dict) or depth == 0:
        return ""
    if isinstance(place := body.get("loc"), list) and isinstance(body.get("msg"), str):
        return f"{'.'.join(map(str, place))}: {body['msg']}"
    found = (
        find_message(body.get(key), depth - 1) for key in ("error", "message", "detail", "msg")
    )
    return next(filter(None, found), "")


def _places(detail: object) -> str:
    """The fields in FastAPI's error: a list of objects with loc and msg."""
    return " ".join(str(_field(each, "loc")) for each in detail) if isinstance(detail, list) else ""


def _number(value: str | None) -> float | None:
    try:
        return max(0.0, float(value or ""))
    except ValueError:
        return None


def _seconds_until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return max(
            0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        )
    except (ValueError, OverflowError):
        return None
