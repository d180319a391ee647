"""Figures of judges, compared with plain computations from the same rows."""

from __future__ import annotations

import random
from itertools import combinations
from statistics import fmean

import pytest
from sklearn import metrics  # type: ignore[import-untyped]

from proofloop.judging.figures import JudgeFigures, judge_figures
from proofloop.judging.predictions import Predictions
from proofloop.judging.rows import JudgedCritique, JudgedProof
from proofloop.judging.tables import rounded_down
from proofloop.method.scales import score_of
from tests.unit.judging.rows import critique, judged


def figures(*rows: JudgedProof, n: int = 4, k: int = 2, has_meta: bool = True) -> JudgeFigures:
    return judge_figures("r1", rows, Predictions(n=n, k=k, has_meta=has_meta))


def value(found: JudgeFigures, name: str, way: str = "verifier") -> float | None:
    return found.ways[way][name].value


def many(seed: int, proofs: int = 80) -> list[JudgedProof]:
    """Proofs of 20 problems with noisy critiques, a few of them unreadable."""
    rng = random.Random(seed)
    rows = []
    for number in range(proofs):
        truth = rng.choice([0.0, 0.5, 1.0])
        scores = [rng.choice([truth, truth, rng.choice([0.0, 0.5, 1.0, None])]) for _ in range(4)]
        fields = {"proof": f"c{number:06d}-000", "problem": f"P{number % 20}"}
        rows.append(judged(truth, scores, source="AB"[number % 2], **fields))
    return rows


def test_figures_equal_a_plain_computation() -> None:
    rows = many(1)
    found = figures(*rows)
    said: list[tuple[float, float]] = []
    for row in rows:
        scores = [each.score for each in row.critiques if each.score is not None]
        if len(scores) > 2:
            said.append((row.truth, min(sorted(set(scores)), key=lambda one: -scores.count(one))))
    truths, predicted = zip(*said, strict=True)
    doubled = [int(2 * each) for each in truths], [int(2 * each) for each in predicted]
    assert value(found, "accuracy") == pytest.approx(metrics.accuracy_score(*doubled))
    assert value(found, "mae") == pytest.approx(metrics.mean_absolute_error(truths, predicted))
    assert value(found, "kappa") == pytest.approx(metrics.cohen_kappa_score(*doubled))
    assert value(found, "weighted_kappa") == pytest.approx(
        metrics.cohen_kappa_score(*doubled, weights="quadratic")
    )
    assert value(found, "leniency") == pytest.approx(fmean(score - truth for truth, score in said))
    right, accepted = [one == 1 for one in truths], [one == 1 for one in predicted]
    assert value(found, "precision") == pytest.approx(metrics.precision_score(right, accepted))


def test_f1_is_scikit_learn_s() -> None:
    rows = many(8)
    accepted = [
        each.is_accepted for each in Predictions(n=4, k=2, has_meta=False).of(rows, "verifier")
    ]
    expected = metrics.f1_score([row.is_right for row in rows], accepted)
    assert value(figures(*rows), "f1") == pytest.approx(expected)
    assert value(figures(judged(0.0, [0.0] * 4)), "f1") is None


def test_the_area_and_the_brier_score_are_of_the_mean_critique() -> None:
    rows = [row for row in many(2) if any(each.score is not None for each in row.critiques)]
    strengths = [
        fmean(each.score for each in row.critiques if each.score is not None) for row in rows
    ]
    right = [row.truth == 1.0 for row in rows]
    found = figures(*rows)
    assert value(found, "auroc") == pytest.approx(metrics.roc_auc_score(right, strengths))
    assert value(found, "brier") == pytest.approx(metrics.brier_score_loss(right, strengths))


def test_self_consistency_is_the_share_of_agreeing_pairs() -> None:
    shares = []
    for row in (rows := many(3)):
        scores = [each.score for each in row.critiques if each.score is not None]
        if pairs := list(combinations(scores, 2)):
            shares.append(fmean(one == other for one, other in pairs))
    assert figures(*rows).critiques["self_consistency"].value == pytest.approx(fmean(shares))


def test_an_undecided_proof_is_no_zero() -> None:
    found = figures(judged(0.0, [None, None, None, 0.0]), judged(1.0, [1.0] * 4, problem="R"))
    assert value(found, "undecided") == 0.5
    assert value(found, "accuracy") == 1.0
    assert found.ways["verifier"]["accuracy"].cases == 1
    assert found.critiques["unreadable"].value == 3 / 8


def test_meta_verification_overturns_a_false_alarm() -> None:
    alarm = judged(1.0, [], critiques=(critique(1.0), *[critique(0.0, confirmed=False)] * 3))
    found = figures(alarm)
    assert value(found, "recall") == 0.0
    assert value(found, "recall", "meta_verified") == 1.0


def test_without_meta_critiques_there_is_one_way() -> None:
    assert list(figures(judged(1.0, [1.0]), n=1, has_meta=False).ways) == ["verifier"]


def test_leniency_has_a_sign() -> None:
    assert value(figures(judged(0.0, [1.0] * 4)), "leniency") == 1.0
    assert value(figures(judged(1.0, [0.0] * 4)), "leniency") == -1.0


def test_one_problem_alone_has_no_jackknife_interval() -> None:
    tau = figures(*many(4)[:1]).ways["verifier"]["kendall_tau"]
    assert (tau.low, tau.high) == (None, None)


def test_replicates_that_are_all_the_same_give_no_jackknife_interval() -> None:
    rows = [judged(truth, [truth] * 4, problem=f"P{n}") for n in range(20) for truth in (0.0, 1.0)]
    auroc = figures(*rows).ways["verifier"]["auroc"]
    assert (auroc.value, auroc.low, auroc.high) == (1.0, None, None)


def test_the_jackknife_s_interval_holds_the_value() -> None:
    by_verifier = figures(*many(5)).ways["verifier"]
    for name in ("f1", "kappa", "weighted_kappa", "kendall_tau", "auroc"):
        found = by_verifier[name]
        assert found.low is not None and found.value is not None and found.high is not None
        assert found.low < found.value < found.high


def test_clusters_widen_the_interval() -> None:
    """The same proofs as 80 problems and as 4."""
    rows = [
        judged(1.0, [1.0 if number < 40 else 0.0] * 4, problem=f"P{number}") for number in range(80)
    ]
    few = [row.model_copy(update={"problem": f"P{place // 20}"}) for place, row in enumerate(rows)]
    single, clustered = (figures(*some).ways["verifier"]["accuracy"] for some in (rows, few))
    assert clustered.high - clustered.low > 2 * (single.high - single.low)  # type: ignore[operator]


def test_every_number_of_critiques_has_its_point() -> None:
    found = figures(judged(1.0, [1.0, 0.0, 0.0, 0.0]))
    scores = {
        point.critiques: point.figures["recall"].value
        for point in found.by_count
        if point.way == "verifier"
    }
    assert scores == {1: 1.0, 2: 0.0, 3: 0.0, 4: 0.0}
    assert Predictions(n=20, k=2, has_meta=True).counts == [1, 2, 3, 4, 6, 8, 12, 16, 20]


def test_reliability_counts_right_proofs_by_strength() -> None:
    rows = [judged(1.0, [1.0] * 4), judged(0.0, [1.0] * 4), judged(0.0, [0.0] * 4)]
    bins = figures(*rows).reliability["verifier"]
    assert [(each.strength, each.right, each.proofs) for each in bins] == [(0, 0, 1), (1, 0.5, 2)]


def test_groups_are_by_source_problem_and_grade() -> None:
    found = figures(*many(6)).groups
    assert list(found) == ["source", "problem", "grade"]
    assert sum(each["accuracy"].cases for each in found["source"].values()) <= 80


def test_a_rule_s_figures_are_of_the_other_half() -> None:
    rows = many(7)
    found = figures(*rows)
    halves = {each.accepted.cases for each in found.acceptance}
    assert len(halves) == 1
    assert 0 < halves.pop() < len(rows)


def test_what_solved_is_worth() -> None:
    found = figures(judged(0.0, [1.0] * 4), judged(1.0, [1.0] * 4, problem="R")).solved
    assert found["solved"].value == 1.0
    assert found["wrong_among_solved"].value == 0.5


def points(*shares: float) -> tuple[JudgedCritique, ...]:
    """Critiques with these points of 7."""
    return tuple(
        critique(score_of(each / 7), confirmed=None).model_copy(update={"share": each / 7})
        for each in shares
    )


def test_points_are_compared_with_people_s_points() -> None:
    rows = [
        judged(0.0, [], grade=2 / 7, critiques=points(2, 4)),
        judged(0.0, [], grade=5 / 7, problem="R", critiques=points(5, 5)),
        judged(1.0, [], grade=1.0, problem="S", critiques=points(7, 6)),
    ]
    found = figures(*rows, n=2, has_meta=False)
    assert value(found, "mae") == pytest.approx((1 + 0 + 0.5) / 7 / 3)
    assert value(found, "leniency") == pytest.approx((1 + 0 - 0.5) / 7 / 3)
    assert value(found, "kendall_tau") == value(found, "auroc") == 1.0
    assert value(found, "accuracy") == pytest.approx(2 / 3)


def test_a_printed_threshold_accepts_the_proofs_that_just_reach_it() -> None:
    for at in (0.9375, 2 / 3, 1 / 6, 1.0, 0.0):
        assert 0 <= at - float(rounded_down(at)) < 0.001
