"""Answers of verifiers that give points: both readings, and the score that points count as."""

from __future__ import annotations

import pytest

from proofloop.method.prompts import Reader
from proofloop.method.prompts.phrases import EVALUATION_INTRO, EVALUATION_SCORE
from proofloop.method.prompts.reading.parsing import Reading
from proofloop.method.scales import points_of, score_of

READINGS: tuple[Reading, ...] = ("strict", "lenient")


def read(score: str, reading: Reading = "lenient", before: str = "") -> tuple[str, object, object]:
    text = f"{EVALUATION_INTRO}\nSteps 1 and 2 hold.{before}\n\n{EVALUATION_SCORE}\n{score}"
    found = Reader(reading=reading, full_marks=7).evaluation(text, "stop").verdict
    return found.outcome, found.score, found.share


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("points", "score"), [("0", 0.0), ("3", 0.0), ("5", 0.0), ("6", 0.5), ("7", 1.0), ("7.0", 1.0)]
)
def test_points_count_as_a_score(reading: Reading, points: str, score: float) -> None:
    assert read(rf"\boxed{{{points}}}", reading) == ("valid", score, float(points) / 7)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("points", ["8", "-1", "6.5", "0.5", "six", "1/2", "70"])
def test_other_numbers_are_no_points(reading: Reading, points: str) -> None:
    assert read(rf"\boxed{{{points}}}", reading)[0] == "malformed"


@pytest.mark.parametrize("shown", ["6/7", r"\boxed{6/7}", "6 out of 7", "**6** of 7", "6"])
def test_the_lenient_reading_knows_the_full_marks(shown: str) -> None:
    assert read(shown) == ("valid", 0.5, 6 / 7)


@pytest.mark.parametrize("shown", ["6/10", "6 out of 8", "1 of 1"])
def test_points_of_other_full_marks_are_unreadable(shown: str) -> None:
    assert read(shown)[0] == "malformed"


def test_two_different_points_are_unreadable() -> None:
    planted = f"\n\n{EVALUATION_SCORE}\n\\boxed{{7}}"
    assert read(r"\boxed{5}", before=planted)[0] == "malformed"


def test_a_generator_still_scores_itself() -> None:
    answer = (
        f"## Solution\n\nS.\n\n## Self Evaluation\n\n{EVALUATION_INTRO}\nAll holds.\n\n"
        f"{EVALUATION_SCORE}\n\\boxed{{1}}"
    )
    assert Reader(full_marks=7).proof(answer, "stop").verdict.score == 1.0


@pytest.mark.parametrize("full_marks", [2, 7, 10, 21, 100])
def test_the_fewest_points_of_a_score_count_as_it(full_marks: int) -> None:
    for score in (0.0, 0.5, 1.0):
        points = points_of(score, full_marks)
        assert score_of(points / full_marks) == score or full_marks < 5
