"""Finds code fences in an answer: text in a closed fence is a quotation. Every pass is linear."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

MAX_FENCES = 1_000
"""The most lines of code fences in an answer. A text with more of them is garbage and not
parsed.
"""

_FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)


_QUOTED_LINES = re.compile(r" {0,3}>[^\n]*(?:\n {0,3}>|\n?\Z)")


class _Fence(NamedTuple):
    """A line of fence marks. Only an opening fence may have words after the marks."""

    start: int
    end: int
    mark: str
    length: int
    can_close: bool


def has_too_many_fences(text: str) -> bool:
    return (
        _has_marks(text)
        and sum(1 for _ in islice(_FENCE.finditer(text), MAX_FENCES + 1)) > MAX_FENCES
    )


def _has_marks(text: str) -> bool:
    """A quick check before the search line by line."""
    return "```" in text or "~~~" in text


def blank_fences(text: str, keeps_inside: Callable[[str], bool] = lambda inside: False) -> str:
    """The text with its closed code fences overwritten by spaces, of the same length. An unclosed
    fence hides nothing.

    If `keeps_inside` is true for the inside of a fence, only its two lines of marks are
    overwritten.
    """
    pieces, done = [], 0
    for opening, closing in _closed(text):
        inside = text[opening.end : closing.start]
        kept = inside if keeps_inside(inside) else " " * len(inside)
        pieces += [text[done : opening.start], " " * (opening.end - opening.start), kept]
        pieces.append(" " * (closing.end - closing.start))
        done = closing.end
    return "".join([*pieces, text[done:]])


def unwrap(text: str) -> str:
    """The inside of a text that consists of one closed code fence; any other text unchanged."""
    closed = _closed(text)
    if len(closed) != 1 or text[: closed[0][0].start].strip() or text[closed[0][1].end :].strip():
        return text
    return text[closed[0][0].end : closed[0][1].start].strip()


def fence_before(text: str, place: int) -> str | None:
    """The content of the closed fence around `place`, before it; None outside of closed fences."""
    for opening, closing in _closed(text):
        if opening.end <= place < closing.start:
            return text[opening.end : place]
    return None


def is_block_quoted(text: str, place: int) -> bool:
    """Whether the line of `place` and the next one are lines of a block quote."""
    line = text.rfind("\n", 0, place) + 1
    return bool(_QUOTED_LINES.match(text, line))


def _closed(text: str) -> list[tuple[_Fence, _Fence]]:
    """The opening and closing lines of all closed fences, in order."""
    found, opened = [], None
    for fence, longest_closer in _fences(text):
        if opened is None:
            opened = fence if longest_closer >= fence.length else None
        elif fence.can_close and fence.mark == opened.mark and fence.length >= opened.length:
            found.append((opened, fence))
            opened = None
    return found


def _fences(text: str) -> list[tuple[_Fence, int]]:
    """The fences in order, each with the length of the longest later fence that could close it, or
    0.
    """
    longest, found = {"`": 0, "~": 0}, []
    for match in reversed(list(_FENCE.finditer(text) if _has_marks(text) else ())):
        marks = match[1]
        fence = _Fence(match.start(), match.end(), marks[0], len(marks), not match[2].strip())
        found.append((fence, longest[fence.mark]))
        if fence.can_close and fence.length > longest[fence.mark]:
            longest[fence.mark] = fence.length
    return found[::-1]
