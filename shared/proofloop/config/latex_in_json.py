"""Finds LaTeX commands whose single backslash JSON read as an escape: `\neq` became a line break
and `eq`.
"""

from __future__ import annotations

import re
from itertools import accumulate

ESCAPES = {
    "\b": ("backspace", "b"),
    "\f": ("form feed", "f"),
    "\n": ("line break", "n"),
    "\r": ("carriage return", "r"),
    "\t": ("tab", "t"),
}
"""What JSON makes of a backslash and a letter."""

UNDOUBLED = re.compile(
    r"\t(?:ext(?:bf|it|rm)|heta|imes|anh|frac|ilde|riangle|herefore|hinspace)(?![a-z])"
    r"|\n(?:abla|otin|subseteq|rightarrow|leftarrow|ewline)(?![a-z])"
    r"|(?<=[${(_^=+*/-])\nu(?![a-z])|\nu(?=[$})_^])"
)
"""A tab or a line break, then the rest of a LaTeX command. The rest is not an ordinary word."""

UNDOUBLED_IN_MATH = re.compile(r"\t(?:ext|au|an|op|o)(?![a-z])|\n(?:eq|leq|geq|cong)(?![a-z])")
"""Also begins an indented or a new line of a text: "an integer", "eq. (2)". A command only within a
formula.
"""

MATH_BORDER = re.compile(
    r"(?P<both>(?<!\\)\$\$?)|(?P<begin>\\[(\[]|\\begin\{(?:align|equation|gather|multline|eqnarray|cases|array|.?matrix))"
    r"|(?P<end>\\[)\]]|\\end\{)"
)


def find_undoubled(text: str) -> re.Match[str] | None:
    """The first LaTeX command of which JSON took the backslash."""
    in_math = (
        found for found in UNDOUBLED_IN_MATH.finditer(text) if _is_in_math(text, found.start())
    )
    found = (UNDOUBLED.search(text), next(in_math, None))
    return min(filter(None, found), key=lambda match: match.start(), default=None)


def _is_in_math(text: str, position: int) -> bool:
    """Whether a formula begins before the position and ends after it."""
    return _is_open(text[:position]) and MATH_BORDER.search(text, position) is not None


def _is_open(text: str) -> bool:
    borders = (found.lastgroup for found in MATH_BORDER.finditer(text))
    *_, is_open = accumulate(
        borders, lambda was, kind: not was if kind == "both" else kind == "begin", initial=False
    )
    return is_open


def command_at(text: str, position: int) -> str | None:
    """The name of the LaTeX command whose backslash and first letter became the character at the
    position.
    """
    _, letter = ESCAPES.get(text[position], ("", ""))
    rest = re.compile("[a-zA-Z]+").match(text, position + 1)
    return letter + rest[0] if letter and rest else None


def name_of(character: str) -> str:
    """A control character for people: `tab`, `control character U+0000`."""
    name, _ = ESCAPES.get(character, (f"control character U+{ord(character):04X}", ""))
    return name
