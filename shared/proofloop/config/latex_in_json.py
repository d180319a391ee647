"""Finds LaTeX commands that lost their backslash in JSON: `\neq` is read as a line break and `eq`,
because JSON needs two backslashes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import accumulate

ESCAPES = {
    "\b": ("backspace", "b"),
    "\f": ("form feed", "f"),
    "\n": ("line break", "n"),
    "\r": ("carriage return", "r"),
    "\t": ("tab", "t"),
}
"""The characters that JSON reads from a backslash and a letter: their name, and the letter."""

UNDOUBLED = re.compile(
    r"\t(?:ext(?:bf|it|rm)|heta|imes|anh|frac|ilde|riangle|herefore|hinspace)(?![a-z])"
    r"|\n(?:abla|otin|subseteq|rightarrow|leftarrow|ewline)(?![a-z])"
    r"|(?<=[${(_^=+*/-])\nu(?![a-z])|\nu(?=[$})_^])"
)
"""A tab or a line break before the rest of a LaTeX command, if the rest is not an English word."""

UNDOUBLED_IN_MATH = re.compile(r"\t(?:ext|au|an|op|o)(?![a-z])|\n(?:eq|leq|geq|cong)(?![a-z])")
"""The same for rests that are also words, as in "an integer" or "eq. (2)". They count only in a
formula.
"""

MATH_BORDER = re.compile(
    r"(?P<both>(?<!\\)\$\$?)|(?P<begin>\\[(\[]|\\begin\{(?:align|equation|gather|multline|eqnarray|cases|array|.?matrix))"
    r"|(?P<end>\\[)\]]|\\end\{)"
)


def find_undoubled(text: str) -> re.Match[str] | None:
    """The first LaTeX command that lost its backslash."""
    borders = list(MATH_BORDER.finditer(text))
    begins = [border.start() for border in borders]
    is_open = list(accumulate((border.lastgroup for border in borders), _opens, initial=False))
    in_math = (
        found
        for found in UNDOUBLED_IN_MATH.finditer(text)
        if (before := bisect_left(begins, found.start())) < len(borders) and is_open[before]
    )
    found = (UNDOUBLED.search(text), next(in_math, None))
    return min(filter(None, found), key=lambda match: match.start(), default=None)


def _opens(was_open: bool, border: str | None) -> bool:
    """Whether a formula is open after a border of this kind."""
    return not was_open if border == "both" else border == "begin"


def command_at(text: str, position: int) -> str | None:
    """The LaTeX command that begins with the character at the position, such as `neq`; or None."""
    _, letter = ESCAPES.get(text[position], ("", ""))
    rest = re.compile("[a-zA-Z]+").match(text, position + 1)
    return letter + rest[0] if letter and rest else None


def name_of(character: str) -> str:
    """The name of a control character: `tab`, `control character U+0000`."""
    name, _ = ESCAPES.get(character, (f"control character U+{ord(character):04X}", ""))
    return name
