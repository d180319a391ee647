"""Normalizes text: lower case, without emphasis, mathematical delimiters, invisible characters, and
other scripts' forms of digits and marks.
"""

from __future__ import annotations

import re

_ALIKE = (
    ("\r\n", "\n"), ("\r", "\n"), ("\u2028", "\n"), ("\u2029", "\n"), ("\u0085", "\n"),
    ("**", ""), ("__", ""), ("*", " "), ("_", " "), ("$", " "), ("~", " "), ("\t", " "),
    ("\\[", " "), ("\\]", " "), ("\\(", " "), ("\\)", " "),
    ("\\,", " "), ("\\;", " "), ("\\!", ""), ("\\:", " "), ("\\ ", " "),
    ("\\quad", " "), ("\\qquad", " "),
    ("\\tfrac", "\\frac"), ("\\dfrac", "\\frac"),
)  # fmt: skip
_FOREIGN = (
    *((invisible, "") for invisible in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"),
    *((space, " ") for space in "\u00a0\u2002\u2003\u2007\u2009\u202f\u3000"),
    *zip("０１２３４５６７８９：．＝（）／＼｛｝", "0123456789:.=()/\\{}", strict=True),
    *zip("−‐‑’⁄", "---'/", strict=True),
)
_HALF = re.compile(r"\\frac\s{0,2}\{?\s{0,2}1\s{0,2}\}?\s{0,2}\{?\s{0,2}2\s{0,2}\}?")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]{1,12}\*?\}")


def normalize(text: str) -> str:
    """The normalized text. Its positions are not those of the original."""
    for spelled, plain in _ALIKE:
        text = text.replace(spelled, plain)
    if not text.isascii():
        for spelled, plain in _FOREIGN:
            text = text.replace(spelled, plain)
    return _ENVIRONMENT.sub(" ", _HALF.sub("1/2", text.lower()))


def lower(text: str) -> str:
    """The text in lower case, of the same length: only this letter would become two."""
    return text.replace("İ", "I").lower()
