"""The parts of a reading of answers. strict.py and lenient.py are the two readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proofloop.method.prompts.phrases import Phrases

REPEATS = "the answer repeats a word too often"


class Unreadable(Exception):
    """The reason why an answer has no score. `cause` is the reason without the answer's words, for
    counting.
    """

    def __init__(self, reason: str, cause: str = "") -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(frozen=True)
class ExpectedFormat:
    """The parts that an evaluation should have: an intro ("" for none) and the phrase before the
    score.

    `others`: score phrases of other roles, which this answer may quote. `has_begun`: a heading
    above the text marks it as an evaluation.
    """

    intro: str
    score: str
    full_marks: int = 1
    others: tuple[str, ...] = ()
    has_begun: bool = False


@dataclass(frozen=True)
class Rules:
    """One reading. Its functions raise Unreadable.

    unwrapped: the final response without a wrapper around the whole text.
    visible: the text with quotations overwritten by spaces; all positions stay the same.
    sections: the positions of solution and self-evaluation in a visible text.
    score: the score of a visible evaluation, or its points.
    """

    unwrapped: Callable[[str], str]
    visible: Callable[[str], str]
    sections: Callable[[str, Phrases], tuple[slice, slice]]
    score: Callable[[str, ExpectedFormat], float]


def one_heading(found: list[slice], heading: str) -> slice:
    """The position of a heading that must occur once. Raises Unreadable."""
    if not found:
        raise Unreadable(f"the heading '{heading}' is missing")
    if len(found) > 1:
        reason = f"the heading '{heading}' appears {{}} times"
        raise Unreadable(reason.format(len(found)), cause=reason.format("several"))
    return found[0]


def between(solution: slice, own: slice, phrases: Phrases) -> tuple[slice, slice]:
    """The sections below two headings. Raises Unreadable if they are in the wrong order."""
    if own.start < solution.start:
        raise Unreadable(
            f"the heading '{phrases.self_heading}' comes before '{phrases.solution_heading}'"
        )
    return slice(solution.stop, own.start), slice(own.stop, None)


def illegal_score(shown: str, full_marks: int = 1) -> Unreadable:
    legal = "0, 0.5 or 1" if full_marks == 1 else f"a whole number from 0 to {full_marks}"
    return Unreadable(f"the score {shown!r} is not {legal}", cause=f"the score is not {legal}")


def two_scores(one: str, other: str) -> Unreadable:
    return Unreadable(f"two different scores: {one} and {other}", cause="two different scores")
