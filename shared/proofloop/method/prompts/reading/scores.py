"""Reads a number as a score, boxed or bare, in the many ways that models write it."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class FoundNumber:
    """A number after words that announce a score. `score` is None unless the number is 0, 0.5 or 1.
    `end` is the position after it.
    """

    shown: str
    score: Score | None
    end: int
    is_number: bool = True


def read_score(text: str, start: int) -> FoundNumber | None:
    """The boxed or bare score at `start` of a normalized text; None without a number."""
    box = _BOX.match(text, start)
    if box is None:
        number = _NUMBER.match(text, start) or _OTHER_NUMBER.match(text, start)
        return FoundNumber(number[0].strip(), _value(number), number.end()) if number else None
    if text[box.end() - 1] != "{":
        return FoundNumber(text[box.end()], _value(_NUMBER.match(text, box.end())), box.end() + 1)
    content, end = _braced(text, box.end())
    number = _NUMBER.fullmatch(plain := _plain(content))
    return FoundNumber(
        content.strip()[:LONGEST_SHOWN],
        _value(number),
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


def _value(number: re.Match[str] | None) -> Score | None:
    if number is None or (number["most"] or "1") not in ("1", "1.0", "one"):
        return None
    if number["parts"] and number["parts"] not in ("1", "1.0"):
        return _EXACT.get(re.sub(r"\s", "", f"{number['number']}/{number['parts']}"))
    if re.search(r",\d{3}", number["number"]):  # a thousands separator
        return None
    spelled = number["number"].replace(",", ".")
    return next((score for form, score in _SPELLED if form.fullmatch(spelled)), _EXACT.get(spelled))


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
