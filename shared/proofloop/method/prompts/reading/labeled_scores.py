"""The scores that the end of an answer states in its own words: after a label such as "**Score:**",
or in a box that closes the text.
"""

from __future__ import annotations

import re

from proofloop.method.prompts.reading.phrase_scores import GAP, StatedScore, statement_at
from proofloop.method.prompts.reading.quotations import (
    DRESS,
    QUOTED_WITHIN,
    SENTENCE,
    WORD,
    is_own_words,
    sentence_start,
)
from proofloop.method.prompts.reading.rules import Unreadable
from proofloop.method.prompts.reading.scores import BEGINS, read_score
from proofloop.method.prompts.reading.vocabulary import (
    FINAL,
    GRADING,
    JUDGED,
    JUDGEMENTS,
    OTHER_LANGUAGES,
    SCORING,
    SOLVING,
)

MAX_GRADINGS = 200
"""The most grading words at the end of an answer; more are garbage."""

_CLOSERS = re.compile(r"[\s.*`$~|>_)\]\u220e\u25a0\u25a1-]*")

_BOXED = re.compile(r"\\{0,2}\bf?boxed\b")

_SCORING = re.compile(rf"\b(?:{'|'.join(sorted(SCORING))})\b")

_FOREIGN_LABEL = re.compile(rf"\n[ #>|•*-]{{0,8}}(?:{OTHER_LANGUAGES.pattern})(?=[ :=]|\d|\\)")

_UNFINISHED = frozenset(
    ["is", "are", "be", "equals", "exactly", "as", "that", "to", "of", "gives", "namely", "value"]
)


def labeled_scores(tail: str) -> list[StatedScore]:
    """The labeled scores of a normalized text, in order."""
    found: dict[int, StatedScore] = {}
    for number, word in enumerate(_SCORING.finditer(tail)):
        if number == MAX_GRADINGS:
            raise Unreadable(f"the end of the answer has more than {MAX_GRADINGS} grading words")
        begins = BEGINS.search(tail, word.end(), word.end() + SENTENCE)
        if begins is not None and begins.start() not in found:
            statement = _graded(tail, sentence_start(tail, word.start()), begins.start())
            if statement is not None:
                found[begins.start()] = statement
    for label in _FOREIGN_LABEL.finditer(tail):
        gap = GAP.match(tail, label.end())
        start = gap.end() if gap else label.end()
        if start not in found and (statement := statement_at(tail, start)) is not None:
            found[start] = statement
    return [found[place] for place in sorted(found)]


def _graded(tail: str, start: int, place: int) -> StatedScore | None:
    """The score at `place` if its sentence, which starts at `start`, only grades."""
    words = WORD.findall(tail[start:place])
    is_other_line = "\n" in tail[start:place].strip("\n")
    if (
        not GRADING.issuperset(words)
        or re.search(r"\d|\\|[<>≤≥≈%]", tail[start:place])
        or not is_own_words(tail, start)
    ):
        return None
    statement = statement_at(tail, place, is_final=not FINAL.isdisjoint(words))
    if statement is not None and is_other_line and _rest(tail, place):
        return None
    return statement


def _rest(tail: str, place: int) -> str:
    """The text after the score at `place`, up to the end of its line."""
    found = read_score(tail, place)
    end = found.end if found else place
    return tail[end : tail.find("\n", end)].strip(DRESS)


def closing_scores(tail: str, full_marks: int, *, has_begun: bool) -> list[StatedScore]:
    """The boxes on lines of their own, with the box that ends the text last; [] if that box may not
    be a score.
    """
    boxes = [found.start() for found in _BOXED.finditer(tail)]
    if not boxes or not _ends_at(tail, boxes[-1]) or not _stands_alone(tail, boxes[-1]):
        return []
    if not (has_begun or _judges(tail[: boxes[-1]])) or not is_own_words(tail, boxes[-1]):
        return []
    read = [
        statement_at(tail, place)
        for place in boxes
        if place == boxes[-1] or _has_own_line(tail, place)
    ]
    *before, last = read
    if last is None or not last.is_number:
        return []
    legal = (each for each in before if each is not None and each.on(full_marks) is not None)
    return [*legal, last]


def _ends_at(tail: str, place: int) -> bool:
    found = read_score(tail, place)
    return found is not None and _CLOSERS.fullmatch(tail, found.end) is not None


def _has_own_line(tail: str, place: int) -> bool:
    return not tail[tail.rfind("\n", 0, place) + 1 : place].strip(DRESS) and not _rest(tail, place)


def _stands_alone(tail: str, place: int) -> bool:
    """Whether the box is not the end of a sentence: the text before it is complete, or is a grading
    heading.
    """
    before = tail[max(0, place - SENTENCE) : place].rstrip(DRESS)
    if not before:
        return True
    line = before[before.rfind("\n") + 1 :]
    words = WORD.findall(line)
    if GRADING.issuperset(words) and not (words and words[-1] in _UNFINISHED):
        return "answer" not in words or words == ["final", "answer"]
    if before[-1] in ".!?。！？∎□":
        return True
    is_listed = re.match(r"\s*(?:[#•|+-]|\d{1,2}[.)])", line) is not None
    return is_listed and before[-1] not in ":," and not (words and words[-1] in _UNFINISHED)


def _judges(text: str) -> bool:
    """Whether a sentence of the text grades a solution, and the text does not solve the problem
    itself.
    """
    words = set(WORD.findall(text))
    if words & SOLVING:
        return False
    sentences = (
        set(WORD.findall(sentence)) for sentence in re.split(r"[.!?\n]", text[-QUOTED_WITHIN:])
    )
    return any(sentence & JUDGED and sentence & JUDGEMENTS for sentence in sentences)
