"""What a reading of answers consists of; strict.py and lenient.py are the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proofloop.method.prompts.phrases import Phrases
from proofloop.schema.records import Score

REPEATS = "the answer repeats a word too often"


class Unreadable(Exception):
    """Why an answer has no score. `cause` says it without the answer's own words, so that it can be
    counted.
    """

    def __init__(self, reason: str, cause: str = "") -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(frozen=True)
class Asked:
    """What an evaluation was asked to hold: an intro ("" for none) and the phrase before the score.

    `others` are the phrases before the scores of other roles' answers, which this one may quote.
    `has_begun`: a heading above it says that it is an evaluation.
    """

    intro: str
    score: str
    others: tuple[str, ...] = ()
    has_begun: bool = False


@dataclass(frozen=True)
class Rules:
    """One reading. Its functions raise Unreadable; `visible` keeps every position of the text.

    unwrapped: the final response without what is around the whole of it.
    visible: the text with what it only quotes overwritten by spaces.
    sections: where solution and self-evaluation stand in a visible text.
    score: the score of a visible evaluation.
    """

    unwrapped: Callable[[str], str]
    visible: Callable[[str], str]
    sections: Callable[[str, Phrases], tuple[slice, slice]]
    score: Callable[[str, Asked], Score]


def one_heading(found: list[slice], heading: str) -> slice:
    """The one place where a heading stands. Raises Unreadable."""
    if not found:
        raise Unreadable(f"the heading '{heading}' is missing")
    if len(found) > 1:
        reason = f"the heading '{heading}' stands there {{}} times"
        raise Unreadable(reason.format(len(found)), cause=reason.format("several"))
    return found[0]


def between(solution: slice, own: slice, phrases: Phrases) -> tuple[slice, slice]:
    """The sections below two headings. Raises Unreadable where they are in the wrong order."""
    if own.start < solution.start:
        raise Unreadable(
            f"the heading '{phrases.self_heading}' comes before '{phrases.solution_heading}'"
        )
    return slice(solution.stop, own.start), slice(own.stop, None)


def no_legal_score(shown: str) -> Unreadable:
    return Unreadable(
        f"the score {shown!r} is none of 0, 0.5, 1", cause="the score is none of 0, 0.5, 1"
    )


def two_scores(one: str, other: str) -> Unreadable:
    return Unreadable(f"two different scores: {one} and {other}", cause="two different scores")
