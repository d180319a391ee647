"""People's grades on any scale, as a share of full marks and as one of the scores 0, 0.5 and 1.

Full marks are 1. From MINOR of full marks on, a proof counts as 0.5: sound, with a minor error. The
scale `score` is the method's own and stays as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

from proofloop.errors import ConfigError
from proofloop.method.scales import MINOR, score_of
from proofloop.schema.records import Score

WORDS = {
    **dict.fromkeys(("pass", "passed", "correct", "right", "true", "yes", "valid"), 1.0),
    **dict.fromkeys(("fail", "failed", "incorrect", "wrong", "false", "no", "invalid"), 0.0),
}

DECIMAL_COMMA = re.compile(r"^(-?\d+),(\d{1,2})$")
"""A number as a spreadsheet of many countries writes it: 0,5."""

SCALE_HINT = "set --scale to score (0, 0.5, 1), pass-fail, or the number of full marks, such as 7"


@dataclass(frozen=True)
class Scale:
    """A scale from 0 to `full`. `is_score`: its grades are scores of the method."""

    full: float
    is_score: bool = False

    @property
    def meaning(self) -> str:
        """The mapping of the scale to scores, in words."""
        if self.is_score:
            return "grades are scores: 0, 0.5 or 1"
        if self.full == 1:
            return "grades are pass or fail: 1 or 0"
        return (
            f"grades go to {self.full:g}: {self.full:g} counts as 1, {MINOR * self.full:g} or more"
            " as 0.5, less as 0"
        )

    def share(self, grade: float) -> float:
        """The share of full marks. Raises ConfigError for a grade that the scale does not have."""
        is_on_it = grade in (0.0, 0.5, 1.0) if self.is_score else 0 <= grade <= self.full
        if not is_on_it or (self.full == 1 and not self.is_score and grade not in (0.0, 1.0)):
            raise ConfigError(f"grade {grade:g} is not on the scale: {self.meaning}", SCALE_HINT)
        return grade / self.full

    def score(self, grade: float) -> Score:
        """The score that the grade maps to."""
        share = self.share(grade)
        return share if self.is_score else score_of(share)


SCORES = Scale(1.0, is_score=True)
PASS_FAIL = Scale(1.0)


def grade_and_full(value: object) -> tuple[float, float | None]:
    """A cell as a number and the full marks that it names, as in `6/7` and `85%`; of a list the
    first. Raises ConfigError.
    """
    if isinstance(value, list | tuple) and value:
        return grade_and_full(value[0])
    text = str(value).strip()
    if text.endswith("%"):
        return parse_grade(text.removesuffix("%")), 100.0
    points, slash, full = text.partition("/")
    if not slash:
        return parse_grade(value), None
    return parse_grade(points), full_marks(full)


def full_marks(value: object) -> float:
    """A cell as full marks. Raises ConfigError for 0 and less."""
    if (most := parse_grade(value)) <= 0:
        raise ConfigError(f"full marks {str(value)!r} are not above 0", "correct the row")
    return most


def parse_grade(value: object) -> float:
    """A cell as a number: a number, a truth value, or a word such as `correct`. Raises
    ConfigError.
    """
    text = str("" if value is None else value).strip().lower()
    if text in WORDS:
        return WORDS[text]
    try:
        number = float(DECIMAL_COMMA.sub(r"\1.\2", text))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):  # an empty cell of pandas is `nan`
        raise ConfigError(
            f"grade {str(value)[:40]!r} is neither a number, such as 6, 6/7 or 85%, nor one of"
            f" {', '.join(WORDS)}",
            "correct the row, or name the column of the grades: --column grade=NAME",
        )
    return number


def parse_scale(text: str) -> Scale:
    """The scale that an option names. Raises ConfigError."""
    named = {"score": SCORES, "pass-fail": PASS_FAIL}
    if text in named:
        return named[text]
    try:
        full = float(text.removeprefix("0-"))
    except ValueError:
        full = 0.0
    if not 0 < full < float("inf"):
        raise ConfigError(f"--scale {text!r} is not a scale", SCALE_HINT)
    return PASS_FAIL if full == 1 else Scale(full)


def guess_scale(grades: Collection[float]) -> Scale:
    """The scale of a file's grades: scores, 0 to 7 or 0 to 10. Raises ConfigError above 10."""
    most = max(grades, default=1.0)
    if most <= 1:
        return SCORES
    for full in (7.0, 10.0):
        if most <= full:
            return Scale(full)
    raise ConfigError(f"the largest grade is {most:g}, and full marks are not known", SCALE_HINT)
