"""Points of full marks as one of the method's scores: full marks are 1, a minor error 0.5."""

from __future__ import annotations

import math

from proofloop.schema.records import Score

MINOR = 0.8
"""The least share of full marks of a proof with a minor error only: 6 of 7, 8 of 10."""


def score_of(share: float) -> Score:
    """The score of a proof with this share of full marks."""
    if share == 1:
        return 1.0
    return 0.5 if share >= MINOR else 0.0


def points_of(score: Score, full_marks: int) -> float:
    """The fewest points that count as this score. Full marks of 1 are the method's own scale."""
    if full_marks == 1 or score != 0.5:
        return score * full_marks
    return math.ceil(MINOR * full_marks)
