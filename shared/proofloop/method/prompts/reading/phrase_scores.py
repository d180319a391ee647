"""The scores that follow the pack's own phrase; case, emphasis, line breaks and auxiliary words of
the phrase are free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from proofloop.method.prompts.reading.normalize import normalize
from proofloop.method.prompts.reading.quotations import SENTENCE, WORD, is_own_words
from proofloop.method.prompts.reading.rules import REPEATS, ExpectedFormat, Unreadable
from proofloop.method.prompts.reading.scores import Spelled, ends_statement, read_score

MAX_HITS = 1_000
"""The most occurrences of a phrase's word in an answer; more are garbage."""

_OPTIONAL = frozenset(
    ["will", "would", "the", "my", "overall", "overal", "final", "should", "be", "that", "a", "is"]
)

_COPULA = re.compile(
    r"(?:\W{1,12}(?:is|be|would|should|will|must|as|at|a|equals?|score|rating|of|with|the)\b){0,6}"
)

_LIST_ITEM = re.compile(r"\d{1,2}[.)]\s{1,5}\w")

_QUOTED_SCORE = re.compile(
    r"[^\w\\]{0,40}(?:\\\[|\\\()?\s{0,5}(?:\\boxed\s?\{[^{}\n]{0,40}\}|[\d.,/]{1,6})"
)

GAP = re.compile(r"(?:[\s:=`|#\"'(\[•→]|[.-](?=\s)){0,60}")
"""The marks between a phrase or label and its score."""


@dataclass(frozen=True)
class StatedScore:
    """A score that the answer states. `is_final`: its sentence calls it final."""

    shown: str
    spelled: Spelled | None
    is_number: bool = True
    is_final: bool = False

    def on(self, full_marks: int) -> float | None:
        """The score, or the points of full marks; None if it is not legal."""
        return self.spelled.on(full_marks) if self.spelled else None


@lru_cache
def _loose(phrase: str) -> tuple[str, re.Pattern[str]]:
    """The phrase's first word, and a pattern of the phrase with any marks, spaces and line breaks
    between its words.
    """
    first, *others = WORD.findall(phrase.lower())
    pattern = re.escape(first)
    for word in others:
        spelled = rf"\W{{1,12}}{'overall?' if word in ('overal', 'overall') else re.escape(word)}"
        pattern += f"(?:{spelled})?" if word in _OPTIONAL else spelled
    return first, re.compile(rf"{pattern}(?!\w)[\"”'’*_]{{0,4}}")


def find_phrase(text: str, phrase: str) -> Iterator[re.Match[str]]:
    first, pattern = _loose(phrase)
    found = (pattern.match(text, place) for place in places(text, first))
    return (match for match in found if match is not None)


def places(text: str, word: str) -> Iterator[int]:
    """The positions of the word. Raises Unreadable for too many of them."""
    place = text.find(word)
    for _ in range(MAX_HITS):
        if place < 0:
            return
        yield place
        place = text.find(word, place + len(word))
    if place >= 0:
        raise Unreadable(f"the answer repeats {word!r} more than {MAX_HITS} times", cause=REPEATS)


def drop_quoted_scores(text: str, expected: ExpectedFormat) -> str:
    """The text without scores after another role's phrase: they are quotations."""
    for phrase in expected.others:
        if _loose(phrase) != _loose(expected.score):
            pieces, done = [], 0
            for found in find_phrase(text, phrase):
                score = _QUOTED_SCORE.match(text, found.end())
                pieces.append(text[done : found.start()])
                done = score.end() if score else found.end()
            text = "".join([*pieces, text[done:]])
    return text


def phrase_scores(text: str, phrase: str) -> tuple[list[StatedScore], str]:
    """The scores after the phrase, and the text after the last phrase. Raises Unreadable if that
    phrase has no score.
    """
    own = [match for match in find_phrase(text, phrase) if is_own_words(text, match.start())]
    scores = [_score_after(text, match.end()) for match in own]
    if not own:
        return [], text
    if scores[-1] is None:
        raise Unreadable(f"no score follows {phrase!r}")
    # a score that is not a number belongs to a quoted sample answer
    scores_before = [score for score in scores[:-1] if score is not None and score.is_number]
    return [*scores_before, scores[-1]], text[own[-1].end() :]


def _score_after(text: str, start: int) -> StatedScore | None:
    copula = _COPULA.match(text, start)
    window = normalize(text[copula.end() if copula else start :][:SENTENCE])
    gap = GAP.match(window)
    place = gap.end() if gap else 0
    if _LIST_ITEM.match(window, place) and "\n" in window[:place]:
        return None
    return statement_at(window, place)


def statement_at(text: str, start: int, *, is_final: bool = False) -> StatedScore | None:
    """The score at `start` of a normalized text; None if the number is part of a sentence."""
    found = read_score(text, start)
    if found is None:
        return None
    ends = ends_statement(text, found.end)
    if ends is None:
        return None
    return StatedScore(found.shown, found.spelled if ends else None, found.is_number, is_final)
