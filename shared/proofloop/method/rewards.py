"""The rewards of DeepSeekMath-V2 (arXiv 2511.22570) as pure functions, each with its equation;
factors have names.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

RewardPreset = Literal["paper", "weighted"]

PAPER_ALPHA, PAPER_BETA = 0.76, 0.24
"""The weights of proof score and self-evaluation in eq. (5)."""

PROOF_WEIGHT, SELF_WEIGHT, FORMAT_WEIGHT = 0.6, 0.3, 0.1
"""The weights of the preset "weighted": proof score, accuracy of the self-score, format. A wrong
format gives 0.
"""


@dataclass(frozen=True)
class Reward:
    """A reward in [0, 1] and its factors by name."""

    total: float
    parts: dict[str, float]


def score_reward(predicted: float, actual: float) -> float:
    """R_score(s', s) = 1 - |s' - s|, eq. (1), of two scores in [0, 1]."""
    return 1.0 - abs(predicted - actual)


def verifier_reward(
    *, predicted: float | None, actual: float, meta_quality: float | None = None
) -> Reward:
    """R_format * R_score, eq. (2); with `meta_quality`, R_format * R_score * R_meta, eq. (3).

    `predicted` is the verifier's score of the proof, None if its format is wrong; `actual` is the
    label.
    """
    if predicted is None:
        return Reward(0.0, {"format": 0.0})
    parts = {"format": 1.0, "score": score_reward(predicted, actual)}
    if meta_quality is not None:
        parts["meta"] = meta_quality
    return Reward(prod(parts.values()), parts)


def meta_verifier_reward(*, predicted: float | None, actual: float) -> Reward:
    """R_format * R_score against the quality score `ms` of the critique, section 2.1.2."""
    return verifier_reward(predicted=predicted, actual=actual)


def generator_reward(
    *,
    proof_score: float,
    self_score: float | None,
    self_quality: float,
    preset: RewardPreset = "paper",
    alpha: float = PAPER_ALPHA,
    beta: float = PAPER_BETA,
) -> Reward:
    """R_format(Y, Z) * (alpha * R_Y + beta * R_Z), eq. (5), with R_Z = R_score(s', s) * R_meta(Z),
    eq. (6).

    `proof_score` is the verifier's score s (R_Y). `self_score` is s', the proof's self-evaluation;
    None if the format is wrong. `self_quality` is R_meta(Z).
    """
    if self_score is None:
        return Reward(0.0, {"format": 0.0})
    accuracy = score_reward(self_score, proof_score)
    if preset == "weighted":
        parts = {"format": 1.0, "proof": proof_score, "self_score": accuracy}
        return Reward(PROOF_WEIGHT * proof_score + SELF_WEIGHT * accuracy + FORMAT_WEIGHT, parts)
    parts = {"format": 1.0, "proof": proof_score, "self_score": accuracy, "self_meta": self_quality}
    return Reward(alpha * proof_score + beta * accuracy * self_quality, parts)
