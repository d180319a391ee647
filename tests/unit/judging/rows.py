"""Rows of judged proofs for the tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from proofloop.judging.rows import JudgedCritique, JudgedProof

NUMBERS = itertools.count()


def critique(score: float | None, confirmed: bool | None = None) -> JudgedCritique:
    outcome = "malformed" if score is None else "valid"
    return JudgedCritique(score=score, outcome=outcome, confirmed=confirmed)


def judged(truth: float, scores: Sequence[float | None], **fields: Any) -> JudgedProof:
    """A proof with these critiques, whose issues are all confirmed."""
    critiques = tuple(critique(one, None if one in (None, 1.0) else True) for one in scores)
    shown = {
        "proof": f"c{next(NUMBERS):06d}-000",
        "origin": "rows.jsonl row 1",
        "problem": "P",
        "source": "",
        "attack": "",
        "grade": truth,
        "truth": truth,
        "score": None,
        "outcome": "undecided",
        "solved": all(one == 1.0 for one in scores),
        "critiques": critiques,
    }
    return JudgedProof(**{**shown, **fields})
