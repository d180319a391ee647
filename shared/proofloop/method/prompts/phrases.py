"""The headings and phrases that mark the parts of an answer. The pack's templates ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from string import whitespace

from proofloop.schema.records import Record

EVALUATION_INTRO = "Here is my evaluation of the solution:"
EVALUATION_SCORE = "Based on my evaluation, the final overall score should be:"
META_INTRO = 'Here is my analysis of the "solution evaluation":'
META_SCORE = 'Based on my analysis, I will rate the "solution evaluation" as:'
SOLUTION_HEADING = "## Solution"
SELF_HEADING = "## Self Evaluation"

LONGEST_PHRASE = 200
"""Characters. A longer line is an explanation, not a phrase."""

_HEADING = re.compile(r"#{1,6} +\S|\*\*[^*]+\*\*$")
_SCORE = re.compile(r"\\boxed\s*\{")
_PLACEHOLDER = re.compile(r"\.\.\.|…|\(|\[|<")


class Phrases(Record):
    """The required parts of an answer: two headings for a proof; an intro ("" for none) and a score
    phrase for an evaluation.

    `self_intro` and `self_score` belong to the generator's self-evaluation. The defaults are the
    paper's (section 2.1.1, appendices A.1 and A.3).
    """

    solution_heading: str = SOLUTION_HEADING
    self_heading: str = SELF_HEADING
    self_intro: str = EVALUATION_INTRO
    self_score: str = EVALUATION_SCORE
    evaluation_intro: str = EVALUATION_INTRO
    evaluation_score: str = EVALUATION_SCORE
    meta_intro: str = META_INTRO
    meta_score: str = META_SCORE


METHOD = Phrases()

PHRASES_OF: Mapping[str, tuple[str, ...]] = {
    "proof_generation": ("solution_heading", "self_heading", "self_intro", "self_score"),
    "proof_verification": ("evaluation_intro", "evaluation_score"),
    "meta_verification": ("meta_intro", "meta_score"),
    "proof_refinement": ("solution_heading", "self_heading", "self_intro", "self_score"),
}
"""The fields of Phrases that the answers to each template need."""

MAY_BE_EMPTY = frozenset({"self_intro", "evaluation_intro", "meta_intro"})


def find_phrases(templates: Mapping[str, str]) -> Phrases:
    """The phrases in the templates' sample answers. Raises LookupError that names a missing part.

    The phrase before a score is the line before the last `\\boxed{`. The intro is the last line
    above it that ends in a colon or is a heading, and has a placeholder such as `...` or `(your
    evaluation)` directly below. The headings are the last two of one level above the
    self-evaluation. `// comments` at the end of a line are ignored.
    """
    solution, own, self_intro, self_score = _find_proof(templates["proof_generation"])
    evaluation_intro, evaluation_score = _find_evaluation(
        templates["proof_verification"], "proof_verification"
    )
    meta_intro, meta_score = _find_evaluation(templates["meta_verification"], "meta_verification")
    return Phrases(
        solution_heading=solution,
        self_heading=own,
        self_intro=self_intro,
        self_score=self_score,
        evaluation_intro=evaluation_intro,
        evaluation_score=evaluation_score,
        meta_intro=meta_intro,
        meta_score=meta_score,
    )


def shows_format(template: str) -> bool:
    """Whether a template shows a sample answer. A model trained on the format needs none."""
    return "\\boxed" in template


def _find_proof(template: str) -> tuple[str, str, str, str]:
    intro, score = _find_evaluation(template, "proof_generation")
    intro = "" if _HEADING.match(intro) else intro  # a heading here is the self-evaluation's
    lines = _lines(template)
    headings = [line for line in lines[: _last_line(lines, intro or score)] if _HEADING.match(line)]
    if not headings:
        raise LookupError(
            "template proof_generation shows no heading above the evaluation of its own solution"
        )
    *before, own = headings
    level = _level(own)
    above = [heading for heading in before if _level(heading) == level]
    if not above:
        raise LookupError(
            f"template proof_generation shows no heading of the solution above {own!r}"
        )
    return above[-1], own, intro, score


def _find_evaluation(template: str, name: str) -> tuple[str, str]:
    """The intro ("" for none) and the phrase before the score."""
    lines = _lines(template)
    boxed = [(number, found) for number, line in enumerate(lines) if (found := _SCORE.search(line))]
    if not boxed:
        raise LookupError(f"template {name} shows no score in \\boxed{{...}}")
    number, score = boxed[-1]
    phrase = _without_delimiter(lines[number][: score.start()])
    while not phrase and number > 0:
        number -= 1
        phrase = lines[number]
    has_word = re.search(r"[^\W\d_]", phrase) and not _PLACEHOLDER.match(phrase)
    if not has_word or len(phrase) > LONGEST_PHRASE:
        raise LookupError(f"template {name} shows no phrase before the score in \\boxed{{...}}")
    return _find_intro(lines[:number]), phrase


def _without_delimiter(text: str) -> str:
    """The text without the beginning of a formula at its end: `$`, `\\[` or `\\(`."""
    text = text.rstrip()
    return text.removesuffix("\\[").removesuffix("\\(").rstrip(f"${whitespace}").strip()


def _find_intro(lines: list[str]) -> str:
    for line, below in reversed(list(pairwise(lines))):
        is_intro = line.endswith(":") or _HEADING.match(line)
        if is_intro and len(line) <= LONGEST_PHRASE and _PLACEHOLDER.match(below):
            return line
    return ""


def _lines(template: str) -> list[str]:
    return [line.partition("//")[0].strip() for line in template.splitlines()]


def _last_line(lines: list[str], text: str) -> int:
    """The number of the last line that starts with the text."""
    return max(number for number, line in enumerate(lines) if line.startswith(text))


def _level(heading: str) -> str:
    return heading.partition(" ")[0] if heading.startswith("#") else "bold"
