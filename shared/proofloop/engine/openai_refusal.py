"""What an OpenAI-compatible server means when it refuses: try later, leave a field out, or never ask this again."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

RETRYABLE_STATUS = frozenset({408, 409, 425, 429})  # and every 5xx
BAD_REQUEST = frozenset({400, 422})  # how servers refuse a field they do not know
ABOUT_THE_CALL = BAD_REQUEST | {413}  # mostly a prompt that is too long; 401 or 404 would meet every call
ABOUT_ACCESS = frozenset({401, 403})
DROPPABLE_FIELDS = ("stream_options", "return_token_ids")  # an answer without them is still an answer


def is_retryable(status: int) -> bool:
    return status in RETRYABLE_STATUS or status >= httpx.codes.INTERNAL_SERVER_ERROR


@dataclass(frozen=True)
class Refusal:
    """A response that is no answer. `text` is what the server said, not yet redacted."""

    status: int
    text: str
    retry_after: str | None = None

    @property
    def is_retryable(self) -> bool:
        return is_retryable(self.status)

    @property
    def is_about_the_call(self) -> bool:
        return self.status in ABOUT_THE_CALL

    @property
    def is_about_access(self) -> bool:
        return self.status in ABOUT_ACCESS

    def unknown_fields(self, sent: Collection[str]) -> set[str]:
        """The fields we sent, could do without, and the server names in its complaint."""
        if self.status not in BAD_REQUEST:
            return set()
        return {name for name in DROPPABLE_FIELDS if name in sent and name in self.text}

    def wait_s(self) -> float | None:
        """The seconds of Retry-After, which may also be a date; None where it says nothing of use."""
        if not self.retry_after:
            return None
        try:
            return max(0.0, float(self.retry_after))
        except ValueError:
            return _seconds_until(self.retry_after)

    def message(self) -> str:
        """The server's own words, wherever its dialect puts them."""
        try:
            body = json.loads(self.text)
        except ValueError:
            return self.text
        return _find_message(body) or self.text


def _find_message(body: object) -> str:
    """OpenAI says error.message, others error, message or detail."""
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return ""
    return next(filter(None, (_find_message(body.get(key)) for key in ("error", "message", "detail"))), "")


def _seconds_until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
