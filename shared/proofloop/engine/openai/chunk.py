"""Reads one event of an OpenAI-compatible stream, or the whole body if the server does not stream.

Reading is lenient: a field with a wrong type counts as absent. The fields are OpenAI's;
`reasoning_content` (or `reasoning`), `token_ids` and `prompt_token_ids` are vLLM's; lists of parts
are Mistral's and OpenAI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json

from proofloop.engine.openai.body import SHOWN_BYTES
from proofloop.engine.openai.failure import AttemptFailed, find_message, kind_of_failure, read_json

LARGEST_COUNT = 2**53
LARGEST_NUMBER = 1e300
THINKING_PARTS = ("thinking", "reasoning")
BESIDE_CHOICES = ("error", "usage", "prompt_token_ids")
BESIDE_DELTA = ("finish_reason", "logprobs", "token_ids")
BESIDE_CONTENT = ("reasoning_content", "reasoning")
NO_CHUNK = "the server sent an event that is not a chat completion"
SENT_ERROR = "the server sent an error in place of an answer"


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(slots=True)  # not frozen: one is made for every event
class Chunk:
    """One event. `token_ids` and `logprobs` hold None for an unreadable entry."""

    has_choices: bool = False
    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    token_ids: tuple[int | None, ...] = ()
    logprobs: tuple[float | None, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    usage: Usage | None = None


def plain_text(body: Any) -> str:
    """The text of an event that holds nothing else, as most do; empty for any other event."""
    try:
        (choice,) = body["choices"]
        delta = choice["delta"]
        text = delta["content"]
    except (KeyError, TypeError, ValueError):
        return ""
    is_plain = (
        type(text) is str
        and not any(map(body.get, BESIDE_CHOICES))
        and "error" not in (body.get("object"), body.get("type"))
        and not any(map(choice.get, BESIDE_DELTA))
        and not any(map(delta.get, BESIDE_CONTENT))
    )
    return text if is_plain else ""


def read_chunk(body: object, event: bytes) -> Chunk:
    """Read one event. Raises AttemptFailed for an unreadable event, and for an error of the
    server.
    """
    if isinstance(body, list) and len(body) == 1:  # Gemini sends its errors so
        body = body[0]
    if not isinstance(body, dict):
        shown = event[:SHOWN_BYTES].decode(errors="replace")
        raise AttemptFailed("failed", f"{NO_CHUNK}: {shown}", cause=NO_CHUNK)
    _raise_error(body)
    choices, prompt_ids = body.get("choices"), body.get("prompt_token_ids")
    if not choices and isinstance(choices, list) and prompt_ids is None:  # the last: its usage
        return Chunk(has_choices=True, usage=_read_usage(body.get("usage")))
    choice = _dict(next(iter(_list(choices)), None))
    delta = _dict(choice.get("delta")) or _dict(choice.get("message"))
    text, thinking = _read_content(delta.get("content"))
    return Chunk(
        has_choices=isinstance(choices, list),
        text=text or _text(delta.get("refusal")),
        reasoning=thinking
        or _text(delta.get("reasoning_content"))
        or _text(delta.get("reasoning")),
        finish_reason=_text(choice.get("finish_reason")),
        token_ids=tuple(map(_count, _list(choice.get("token_ids")))),
        logprobs=_read_logprobs(choice.get("logprobs")),
        prompt_ids=_ids(prompt_ids) if isinstance(prompt_ids, list) else None,
        usage=_read_usage(body.get("usage")),
    )


def parse_event(event: bytes) -> object:
    """Parse JSON. The fast parser refuses half a surrogate pair and broken UTF-8; json reads
    them.
    """
    try:
        return from_json(event)
    except ValueError:
        return read_json(event.decode(errors="replace"))


def _raise_error(body: dict[str, object]) -> None:
    """Raise an error that came with status 200: under `error`, or (SGLang) as an object of type
    "error".
    """
    error = body.get("error")
    if not error and "error" in (body.get("object"), body.get("type")):
        error = body
    if not error:
        return
    if isinstance(error, str):  # text-generation-inference puts error_type beside the text
        error = {**body, "message": error}
    words = find_message(error) or str(error)
    raise AttemptFailed(
        kind_of_failure(HTTPStatus.OK, error), f"{SENT_ERROR}: {words}", cause=SENT_ERROR
    )


def _read_content(content: object) -> tuple[str, str]:
    """The text and the reasoning of a string, or of a list of parts."""
    if not isinstance(content, list):
        return _text(content), ""
    parts = [_dict(part) for part in content]
    thinking = [_read_part(part) for part in parts if part.get("type") in THINKING_PARTS]
    text = [_read_part(part) for part in parts if part.get("type") not in THINKING_PARTS]
    return "".join(text), "".join(thinking)


def _read_part(part: dict[str, object]) -> str:
    """The text of a part. Mistral nests the parts of its reasoning in another list."""
    inner = [_dict(each) for each in _list(part.get("thinking"))]
    nested = "".join(_text(each.get("text")) for each in inner)
    return nested or _text(part.get("text")) or _text(part.get("thinking"))


def _read_logprobs(logprobs: object) -> tuple[float | None, ...]:
    if not isinstance(logprobs, dict):
        return ()
    return tuple(map(_logprob, _list(logprobs.get("content"))))


def _read_usage(usage: object) -> Usage | None:
    """The token counts; None if one is missing or has another name. The answer counts all the
    same.
    """
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = _count(_dict(usage.get("prompt_tokens_details")).get("cached_tokens"))
    return Usage(prompt, completion, cached or 0)


def _ids(values: list[object]) -> tuple[int, ...] | None:
    counts = tuple(count for count in map(_count, values) if count is not None)
    return counts if len(counts) == len(values) else None


def _logprob(entry: object) -> float | None:
    value = _dict(entry).get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST_NUMBER else None


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LARGEST_COUNT else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
