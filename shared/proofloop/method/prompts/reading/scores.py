"""Reads a number as a score, boxed or bare, in the many ways that models write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from proofloop.method.prompts.reading.vocabulary import HEDGES, REMARKS
from proofloop.schema.records import Score

LONGEST_BOX = 60
LONGEST_SHOWN = 40

BEGINS = re.compile(r"\\{0,2}\bf?boxed\b|[+-]?(?:\d|[.,]\d|½)|\\frac")
"""Where a number or a box begins."""

_BOX = re.compile(r"\\{0,2}f?boxed\s{0,5}(?:\{|(?=[01]))")
_NUMBER = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:[.,]\d+)?|[.,]\d+|½))(?:\s{0,2}/\s{0,2}(?P<parts>\d+(?:[.,]\d+)?))?"
    r"(?:\s{0,2}\(?\s?(?:out )?of (?P<most>one|\d+(?:[.,]\d+)?)\)?)?(?![\w%^°/]|[.,]\d)"
)
_OTHER_NUMBER = re.compile(
    r"(?P<number>[+-]?[.,]?[\d½][\w.,/%^°\\{}-]{0,12}|\\frac[^\s]{0,12})(?P<parts>)?(?P<most>)?"
)
_MACROS = re.compile(
    r"\\(?:text(?:bf|rm|it)?|math(?:bf|rm|sf)|boxed|bf|rm|displaystyle|large|huge)\b\s?"
)
_LABEL = re.compile(r"(?:final |overall )*(?:score|rating|grade|s)\s?[:=]\s?")
_GOES_ON = re.compile(r"\n\s{0,9}(?:is|was|are|which|if|unless|or|but|minus|when|provided)\b")
_EXACT: dict[str, Score] = {"1/2": 0.5, "½": 0.5}
_SPELLED: tuple[tuple[re.Pattern[str], Score], ...] = (
    (re.compile(r"0(\.0+)?"), 0.0),
    (re.compile(r"0?\.50*"), 0.5),
    (re.compile(r"1(\.0+)?"), 1.0),
)


class Spelled(NamedTuple):
    """A number as it is written: `number`, `number/parts` or `number of most`."""

    number: str
    parts: str | None
    most: str | None

    def on(self, full_marks: int) -> float | None:
        """The score, or the points of full marks; None for a number that the scale lacks."""
        if full_marks == 1:
            return self._score()
        is_of_full_marks = {self.parts, self.most} <= {None, str(full_marks)}
        return read_points(self.number, full_marks) if is_of_full_marks else None

    def _score(self) -> Score | None:
        if (self.most or "1") not in ("1", "1.0", "one"):
            return None
        if self.parts and self.parts not in ("1", "1.0"):
            return _EXACT.get(re.sub(r"\s", "", f"{self.number}/{self.parts}"))
        if re.search(r",\d{3}", self.number):  # a thousands separator
            return None
        plain = self.number.replace(",", ".")
        return next((score for form, score in _SPELLED if form.fullmatch(plain)), _EXACT.get(plain))


@dataclass(frozen=True)
class FoundNumber:
    """A number after words that announce a score. `end` is the position after it."""

    shown: str
    spelled: Spelled | None
    end: int
    is_number: bool = True


def read_score(text: str, start: int) -> FoundNumber | None:
    """The boxed or bare score at `start` of a normalized text; None without a number."""
    box = _BOX.match(text, start)
    if box is None:
        number = _NUMBER.match(text, start) or _OTHER_NUMBER.match(text, start)
        return FoundNumber(number[0].strip(), _spelled(number), number.end()) if number else None
    if text[box.end() - 1] != "{":
        number = _NUMBER.match(text, box.end())
        return FoundNumber(text[box.end()], _spelled(number), box.end() + 1)
    content, end = _braced(text, box.end())
    number = _NUMBER.fullmatch(plain := _plain(content))
    return FoundNumber(
        content.strip()[:LONGEST_SHOWN],
        _spelled(number),
        end,
        is_number=bool(re.search(r"\d", plain)),
    )


def ends_statement(text: str, end: int) -> bool | None:
    """Whether at most a remark follows on the line; None if the number is part of a longer
    sentence.
    """
    rest = _line(text, end).partition("//")[0]
    bare = rest.strip(" \t`'\"’”.)]}|*…。")
    if _GOES_ON.match(text, end + len(_line(text, end))):
        return False
    if not bare:
        return True
    if HEDGES.search(bare):
        return False
    first = re.match(r"\w+", bare)
    if rest.lstrip(" \t`)]}*")[:1] in tuple(".,;:!(–—-|。，；（") or (
        first and first[0] in REMARKS
    ):
        return True
    return None


def _spelled(number: re.Match[str] | None) -> Spelled | None:
    return Spelled(number["number"], number["parts"], number["most"]) if number else None


def read_points(text: str, full_marks: int) -> float | None:
    """The points if the text is a whole number from 0 to full marks, such as `6` or `6.0`."""
    if not re.fullmatch(r"\d{1,3}(\.0+)?", text) or float(text) > full_marks:
        return None
    return float(text)


def _plain(content: str) -> str:
    """The content of a box without macros, braces, marks and a label."""
    undressed = re.sub(r"(?<!\\)[{}]", "", _MACROS.sub("", content)).strip(" \t\n`'\"").rstrip(".")
    return _LABEL.sub("", undressed, count=1)


def _braced(text: str, start: int) -> tuple[str, int]:
    """The content of a brace that opened before `start`, and the position after it; cut if it is
    too long.
    """
    depth = 1
    for position in range(start, min(start + LONGEST_BOX, len(text))):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position], position + 1
    return text[start : start + LONGEST_BOX], min(start + LONGEST_BOX, len(text))


def _line(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)][:200]
