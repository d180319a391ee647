"""The strict reading, the paper's: the pack's exact headings and phrases, and the boxed score
directly after its phrase.

Each heading must occur exactly once: a planted heading cannot move the end of a solution. A score
that is quoted before the last phrase does not count.
"""

from __future__ import annotations

import re
from functools import lru_cache

from proofloop.method.prompts.phrases import Phrases
from proofloop.method.prompts.reading.fences import blank_fences
from proofloop.method.prompts.reading.rules import (
    ExpectedFormat,
    Rules,
    Unreadable,
    between,
    illegal_score,
    one_heading,
)
from proofloop.method.prompts.reading.scores import read_points
from proofloop.schema.records import Score

LONGEST_SPELLING = 40
SPELLINGS: dict[str, Score] = {
    **dict.fromkeys(("0", "0.0", "0.00"), 0.0),
    **dict.fromkeys(
        ("0.5", ".5", "0.50", "1/2", r"\frac12", r"\frac{1}{2}", r"\frac1{2}", r"\frac{1}2"), 0.5
    ),
    **dict.fromkeys(("1", "1.0", "1.00"), 1.0),
}
_BOX = re.compile(r"[\s*_$]{0,20}(?:\\\[|\\\()?\s{0,5}\\boxed\s{0,5}\{")


def _sections(visible: str, phrases: Phrases) -> tuple[slice, slice]:
    solution = one_heading(_headings(visible, phrases.solution_heading), phrases.solution_heading)
    own = one_heading(_headings(visible, phrases.self_heading), phrases.self_heading)
    return between(solution, own, phrases)


def _headings(text: str, heading: str) -> list[slice]:
    """The positions of the lines that hold the heading alone."""
    found = re.finditer(rf"^{re.escape(heading)}(?=[ \t\r]*$)", text, re.MULTILINE)
    return [slice(*match.span()) for match in found]


def _score(visible: str, expected: ExpectedFormat) -> float:
    anchors = list(_anchor(expected.score).finditer(visible))
    if not anchors:
        raise Unreadable(f"the phrase {expected.score!r} is missing")
    if not 0 <= visible.find(expected.intro) < anchors[-1].start():
        raise Unreadable(f"the phrase {expected.intro!r} is missing before the score")
    box = _BOX.match(visible, anchors[-1].end())
    if box is None:
        raise Unreadable(f"no boxed score follows {expected.score!r}")
    return _read_spelling(braced(visible, box.end()), expected.full_marks)


@lru_cache
def _anchor(phrase: str) -> re.Pattern[str]:
    """The phrase, with both spellings of "overall": the released model's own template has
    "overal".
    """
    return re.compile(re.sub(r"overall?", "overall?", re.escape(phrase)))


def _read_spelling(content: str, full_marks: int) -> float:
    spelled = (
        re.sub(r"\s|\$|\\[,;!]", "", content)
        .replace(r"\tfrac", r"\frac")
        .replace(r"\dfrac", r"\frac")
    )
    text_macro = re.fullmatch(r"\\(?:text|mathbf|mathrm)\{(.*)\}", spelled)
    plain = text_macro[1] if text_macro else spelled
    score = SPELLINGS.get(plain) if full_marks == 1 else read_points(plain, full_marks)
    if score is None:
        raise illegal_score(content[:LONGEST_SPELLING], full_marks)
    return score


def braced(text: str, start: int) -> str:
    """The text between an opening brace before `start` and its closing brace; "" if that is too far
    away.
    """
    depth = 1
    for position in range(start, min(start + LONGEST_SPELLING, len(text))):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return ""


STRICT = Rules(unwrapped=lambda text: text, visible=blank_fences, sections=_sections, score=_score)
