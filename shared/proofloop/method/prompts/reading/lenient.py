"""The lenient reading: finds a score only where a careful person would be sure of it.

The rules, for the evaluation in a final response. Quotations do not count: closed code fences,
block quotes and texts in quotation marks, unless a fence or block quote holds only the score. Text
before the first intro ("Here is my evaluation of the solution:", or a heading such as
"### Evaluation") does not count either, because it may quote a proof.

1. A *phrase score* follows the pack's own phrase. Case, emphasis, line breaks and auxiliary words
  of the phrase are free.
2. A *labeled score* follows, at the start of a sentence, words that only grade: "**Score:** 1",
  "I rate this proof 0.5", "My final grade is \\boxed{0}". Any other word, a hedge or a range makes
  it invalid.
3. A *closing score* is a box by itself at the very end, if there is an intro or the words before it
  judge a solution.

Phrase scores decide. Without them the labeled scores decide, starting from the first that is
called final; without those the closing score. All these scores, and every later labeled or closing
score, must agree. Two different scores make the answer unreadable, because a proof may have planted
one of them. A score other than 0, 0.5 and 1, and a phrase without a score, make it unreadable too.
"""

from __future__ import annotations

import re
from itertools import islice

from proofloop.method.prompts.phrases import Phrases
from proofloop.method.prompts.reading.headings import find_headings
from proofloop.method.prompts.reading.labeled_scores import closing_scores, labeled_scores
from proofloop.method.prompts.reading.normalize import lower, normalize
from proofloop.method.prompts.reading.phrase_scores import (
    MAX_HITS,
    StatedScore,
    drop_quoted_scores,
    find_phrase,
    phrase_scores,
    places,
)
from proofloop.method.prompts.reading.quotations import (
    SENTENCE,
    is_own_words,
    unwrapped,
    without_quotations,
)
from proofloop.method.prompts.reading.rules import (
    ExpectedFormat,
    Rules,
    Unreadable,
    between,
    illegal_score,
    one_heading,
    two_scores,
)

TAIL = 8_000
"""The length in characters of the end of an answer that may hold a labeled or closing score."""

_INTRO = re.compile(
    r"[ \t*_#>|\d.)-]{0,12}(?:here(?: is|['’]s) )?(?:(?:my|the|an?|final|overall|detailed)["
    r" -]){0,3}"
    r"(?:evaluation|assessment|review|critique|verification|grading)(?: of (?:the|this|my)"
    r" (?:solution|proof))?"
    r"[ \t*_:#.\r]{0,8}"
)

_INTRO_WORDS = ("evaluation", "assessment", "review", "critique", "verification", "grading")


def _sections(visible: str, phrases: Phrases) -> tuple[slice, slice]:
    solution = one_heading(
        find_headings(visible, phrases.solution_heading), phrases.solution_heading
    )
    own = one_heading(find_headings(visible, phrases.self_heading), phrases.self_heading)
    return between(solution, own, phrases)


def _score(visible: str, expected: ExpectedFormat) -> float:
    text = drop_quoted_scores(f"\n{lower(visible)}\n", expected)
    begun = _evaluation_start(text, expected.intro)
    own = text if begun is None else text[begun:]
    phrases, rest = phrase_scores(own, expected.score)
    tail = normalize(rest[-TAIL:])
    full_marks = expected.full_marks
    closing = closing_scores(tail, full_marks, has_begun=begun is not None or expected.has_begun)
    return _agreed(_deciding(phrases, labeled_scores(tail), closing, full_marks), full_marks)


def _deciding(
    phrases: list[StatedScore],
    labeled: list[StatedScore],
    closing: list[StatedScore],
    full_marks: int,
) -> list[StatedScore]:
    """The stated scores that must agree."""
    if phrases:
        return [*phrases, *labeled, *closing]
    final = next((number for number, each in enumerate(labeled) if each.is_final), None)
    if (
        final is None
        and len(labeled) > 1
        and not closing
        and len({each.on(full_marks) for each in labeled}) == 1
    ):
        raise Unreadable("several scores, none of them called final")
    return [*labeled[final or 0 :], *closing]


def _agreed(statements: list[StatedScore], full_marks: int) -> float:
    if not statements:
        raise Unreadable("no score found")
    last = statements[-1]
    score = last.on(full_marks)
    for other in statements:
        if other.on(full_marks) != score:
            raise two_scores(other.shown, last.shown)
    if score is None:
        raise illegal_score(last.shown, full_marks)
    return score


def _evaluation_start(text: str, intro: str) -> int | None:
    """The start of the evaluation, after its first intro or heading; None without either."""
    intros = (
        (match.end() for match in find_phrase(text, intro) if is_own_words(text, match.start()))
        if intro
        else ()
    )
    found = list(islice(intros, 1))
    for word in _INTRO_WORDS:
        for place in islice(places(text, word), MAX_HITS):
            start, end = text.rfind("\n", 0, place) + 1, text.find("\n", place)
            if (
                place - start < SENTENCE
                and end - place < SENTENCE
                and _INTRO.fullmatch(text, start, end)
            ):
                found.append(end)
                break
    return min(found, default=None)


LENIENT = Rules(unwrapped=unwrapped, visible=without_quotations, sections=_sections, score=_score)
