"""Every reward formula against numbers worked out by hand."""

from __future__ import annotations

import pytest

from proofloop.method.rewards import (
    Reward,
    generator_reward,
    meta_verifier_reward,
    score_reward,
    verifier_reward,
)


def nearly(reward: Reward) -> tuple[float, dict[str, float]]:
    return pytest.approx(reward.total), pytest.approx(reward.parts)


@pytest.mark.parametrize(
    ("predicted", "actual", "expected"),
    [
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 1.0),
        (0.5, 0.5, 1.0),
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.5, 1.0, 0.5),
        (0.5, 0.0, 0.5),
    ],
)
def test_score_reward_is_one_minus_the_distance(
    predicted: float, actual: float, expected: float
) -> None:
    assert score_reward(predicted, actual) == expected


def test_verifier_reward_of_the_first_stage_is_format_times_score() -> None:
    assert verifier_reward(predicted=0.5, actual=0.0) == Reward(0.5, {"format": 1.0, "score": 0.5})
    assert verifier_reward(predicted=1.0, actual=1.0) == Reward(1.0, {"format": 1.0, "score": 1.0})


def test_verifier_reward_with_meta_verification_is_the_product_of_three() -> None:
    actual = verifier_reward(predicted=0.5, actual=1.0, meta_quality=0.75)
    assert actual == Reward(0.375, {"format": 1.0, "score": 0.5, "meta": 0.75})


def test_a_right_score_with_invented_defects_earns_nothing() -> None:
    assert verifier_reward(predicted=0.0, actual=0.0, meta_quality=0.0).total == 0.0


def test_meta_verifier_reward_is_format_times_score() -> None:
    assert meta_verifier_reward(predicted=0.0, actual=0.5) == Reward(
        0.5, {"format": 1.0, "score": 0.5}
    )


def test_generator_reward_is_the_weighted_sum_of_proof_and_self_evaluation() -> None:
    actual = generator_reward(proof_score=0.5, self_score=1.0, self_quality=0.8)
    # 0.76 * 0.5 + 0.24 * (1 - 0.5) * 0.8 = 0.38 + 0.096
    assert (actual.total, actual.parts) == nearly(
        Reward(0.476, {"format": 1.0, "proof": 0.5, "self_score": 0.5, "self_meta": 0.8})
    )


@pytest.mark.parametrize(
    ("proof_score", "self_score", "quality", "expected"),
    [
        (1.0, 1.0, 1.0, 1.0),
        (0.0, 0.0, 1.0, 0.24),
        (0.0, 1.0, 1.0, 0.0),
        (1.0, 0.0, 1.0, 0.76),
        (1.0, 1.0, 0.0, 0.76),
    ],
)
def test_honesty_about_a_wrong_proof_earns_beta_and_boasting_nothing(
    proof_score: float, self_score: float, quality: float, expected: float
) -> None:
    actual = generator_reward(proof_score=proof_score, self_score=self_score, self_quality=quality)
    assert actual.total == pytest.approx(expected)


def test_generator_weights_can_be_chosen() -> None:
    actual = generator_reward(
        proof_score=1.0, self_score=0.5, self_quality=0.5, alpha=0.5, beta=0.5
    )
    assert actual.total == pytest.approx(0.5 * 1.0 + 0.5 * 0.5 * 0.5)


def test_weighted_preset_adds_proof_self_evaluation_and_format() -> None:
    actual = generator_reward(proof_score=0.5, self_score=1.0, self_quality=0.0, preset="weighted")
    # 0.6 * 0.5 + 0.3 * 0.5 + 0.1
    assert (actual.total, actual.parts) == nearly(
        Reward(0.55, {"format": 1.0, "proof": 0.5, "self_score": 0.5})
    )


def test_weighted_preset_is_one_for_a_perfect_and_honest_proof() -> None:
    actual = generator_reward(proof_score=1.0, self_score=1.0, self_quality=0.0, preset="weighted")
    assert actual.total == pytest.approx(1.0)


@pytest.mark.parametrize("preset", ["paper", "weighted"])
def test_a_wrong_format_vetoes_everything(preset: str) -> None:
    vetoed = Reward(0.0, {"format": 0.0})
    actual = generator_reward(proof_score=1.0, self_score=None, self_quality=1.0, preset=preset)  # type: ignore[arg-type]
    assert actual == vetoed
    assert verifier_reward(predicted=None, actual=1.0, meta_quality=1.0) == vetoed
    assert meta_verifier_reward(predicted=None, actual=1.0) == vetoed
