"""Models' texts for a page: printable, and no longer than their place."""

from __future__ import annotations

from dataclasses import dataclass

from proofloop.typeset.printable import printable

_HTML_BYTES = {"<": 4, ">": 4, "&": 5, '"': 5, "'": 5}


@dataclass(frozen=True)
class Text:
    """A model's text for the page: printable, and without its last `left_out` characters."""

    shown: str
    left_out: int = 0


def clip(text: str, limit: int) -> Text:
    """The printable beginning of a text that takes at most `limit` bytes as HTML."""
    size = 0
    for position, character in enumerate(text):
        size += _html_size(character)
        if size > limit:
            return Text(printable(text[:position]), len(text) - position)
    return Text(printable(text))


def _html_size(character: str) -> int:
    if character in _HTML_BYTES:
        return _HTML_BYTES[character]
    return 1 if character.isascii() else len(printable(character).encode())
