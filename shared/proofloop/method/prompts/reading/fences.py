"""Code fences in an answer: what stands in a closed one is quoted, not said. Every pass is
linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

MAX_FENCES = 1_000
"""More lines of code fences than any answer has: what repeats them by the thousand is garbage and
costs no time.
"""

_FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)


class _Fence(NamedTuple):
    """A line of fence marks; only an opening one may have words behind it."""

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
    """Looks for what every fence has, which is far quicker than looking at every line."""
    return "```" in text or "~~~" in text


def blank_fences(text: str, is_said: Callable[[str], bool] = lambda inside: False) -> str:
    """The text, as long as before, with its closed code fences overwritten by spaces. An unclosed
    fence hides nothing.

    Of a fence whose inside `is_said`, only the two lines of marks are overwritten.
    """
    pieces, done = [], 0
    for opening, closing in _closed(text):
        inside = text[opening.end : closing.start]
        kept = inside if is_said(inside) else " " * len(inside)
        pieces += [text[done : opening.start], " " * (opening.end - opening.start), kept]
        pieces.append(" " * (closing.end - closing.start))
        done = closing.end
    return "".join([*pieces, text[done:]])


def unwrap(text: str) -> str:
    """The inside of a text that is one closed code fence from beginning to end; else the text."""
    closed = _closed(text)
    if len(closed) != 1 or text[: closed[0][0].start].strip() or text[closed[0][1].end :].strip():
        return text
    return text[closed[0][0].end : closed[0][1].start].strip()


def _closed(text: str) -> list[tuple[_Fence, _Fence]]:
    """The opening and the closing line of every closed fence, in order."""
    found, opened = [], None
    for fence, longest_closer in _fences(text):
        if opened is None:
            opened = fence if longest_closer >= fence.length else None
        elif fence.can_close and fence.mark == opened.mark and fence.length >= opened.length:
            found.append((opened, fence))
            opened = None
    return found


def _fences(text: str) -> list[tuple[_Fence, int]]:
    """The fences in order, each with the length of the longest later one that could close its kind,
    or 0.
    """
    longest, found = {"`": 0, "~": 0}, []
    for match in reversed(list(_FENCE.finditer(text) if _has_marks(text) else ())):
        marks = match[1]
        fence = _Fence(match.start(), match.end(), marks[0], len(marks), not match[2].strip())
        found.append((fence, longest[fence.mark]))
        if fence.can_close and fence.length > longest[fence.mark]:
            longest[fence.mark] = fence.length
    return found[::-1]
