"""The agreement of predictions with people's grades, with 95 % intervals: problems are clusters.

Means have the intervals of `runs.figures`. F1, the kappas, Kendall's tau and the area under the ROC
curve are scikit-learn's and SciPy's, with intervals of a jackknife that leaves out groups of
problems: a bootstrap would call them hundreds of times.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from proofloop.errors import library
from proofloop.judging.predictions import Prediction
from proofloop.runs.figures import Clusters, Figure

GROUPS = 10
"""Of problems that the jackknife leaves out in turn. Fewer problems: one each."""

LEAST = {"f1": 0.0, "auroc": 0.0}
"""The least value of a statistic, where it is not -1."""

CLASSES = (0, 1, 2)
"""Twice the scores: scikit-learn takes classes that are whole numbers."""


def mean_figures(predictions: Sequence[Prediction], names: Sequence[str] = ()) -> dict[str, Figure]:
    """The figures that are means, all of MEANS or these.

    `precision` is over accepted proofs, `recall` over right ones, `false_accept_rate` over wrong
    ones. `accuracy`, `mae` and `leniency` (the mean of score minus truth) are over decided ones.
    Where the verifier gives points, `mae` and `leniency` compare their mean with people's grade.
    """
    figures = {name: _mean(predictions, MEANS[name]) for name in names or MEANS}
    if "leniency" in figures:
        figures["leniency"] = _signed(figures["leniency"])
    return figures


def _mean(predictions: Sequence[Prediction], value_of: Value) -> Figure:
    clusters = Clusters()
    for each in predictions:
        if (value := value_of(each)) is not None:
            clusters.add(each.problem, value)
    return clusters.figure()


Value = Callable[[Prediction], float | None]
"""What a prediction adds to a mean; None where it does not count."""

MEANS: Mapping[str, Value] = {
    "accuracy": lambda one: None if one.score is None else one.score == one.truth,
    "precision": lambda one: one.is_right if one.is_accepted else None,
    "recall": lambda one: one.is_accepted if one.is_right else None,
    "false_accept_rate": lambda one: None if one.is_right else one.is_accepted,
    "mae": lambda one: None if one.error is None else abs(one.error),
    "leniency": lambda one: None if one.error is None else (one.error + 1) / 2,
    "brier": lambda one: None if one.strength is None else (one.strength - one.is_right) ** 2,
    "undecided": lambda one: one.score is None,
}


def _signed(figure: Figure) -> Figure:
    """A figure in [0, 1] as one in [-1, 1]."""
    bounds = {
        name: None if value is None else 2 * value - 1
        for name, value in figure.model_dump(exclude={"cases"}).items()
    }
    return Figure(**bounds, cases=figure.cases)


Statistic = Callable[[Sequence[Prediction]], float]


def statistics() -> dict[str, Statistic]:
    """The figures that are not means, by name. Raises ConfigError without the extra `judge`."""
    with library("scikit-learn and SciPy, which compute the figures, are not installed", "[judge]"):
        from scipy.stats import kendalltau  # type: ignore[import-untyped]
        from sklearn import metrics  # type: ignore[import-untyped]

    def kappa(some: Sequence[Prediction], weights: str | None = None) -> float:
        pairs = [
            (int(2 * each.truth), int(2 * each.score)) for each in some if each.score is not None
        ]
        truths, scores = zip(*pairs, strict=True)
        found: float = metrics.cohen_kappa_score(truths, scores, labels=CLASSES, weights=weights)
        return found

    def ranked(some: Sequence[Prediction]) -> list[Prediction]:
        return [each for each in some if each.strength is not None]

    return {
        "f1": lambda some: metrics.f1_score(
            [each.is_right for each in some],
            [each.is_accepted for each in some],
            zero_division=float("nan"),
        ),
        "kappa": kappa,
        "weighted_kappa": lambda some: kappa(some, "quadratic"),
        "kendall_tau": lambda some: (
            kendalltau(
                [each.grade for each in ranked(some)], [each.strength for each in ranked(some)]
            ).statistic
        ),
        "auroc": lambda some: metrics.roc_auc_score(
            [each.is_right for each in ranked(some)], [each.strength for each in ranked(some)]
        ),
    }


def values(predictions: Sequence[Prediction]) -> dict[str, float | None]:
    """The value of each statistic; None where it is not defined, as with one class alone."""
    from sklearn import config_context

    with config_context(assume_finite=True, skip_parameter_validation=True):
        return {name: _defined(of, predictions) for name, of in statistics().items()}


def statistic_figures(predictions: Sequence[Prediction]) -> dict[str, Figure]:
    """The value of each statistic with its interval; none with fewer than two problems."""
    found = values(predictions)
    bounds = _bounds(predictions, found)
    return {
        name: Figure(value=value, low=bounds[name][0], high=bounds[name][1], cases=len(predictions))
        for name, value in found.items()
    }


def _bounds(
    predictions: Sequence[Prediction], found: Mapping[str, float | None]
) -> dict[str, tuple[float | None, float | None]]:
    """The jackknife's standard error with Student's t. One that leaves out a group is undefined
    where a statistic is.
    """
    groups = _groups(predictions)
    none: tuple[float | None, float | None] = None, None
    if len(groups) < 2:
        return dict.fromkeys(found, none)
    replicates = [
        values([each for other in groups if other is not group for each in other])
        for group in groups
    ]
    return {
        name: _interval(name, value, [replicate[name] for replicate in replicates])
        for name, value in found.items()
    }


def _groups(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    """The problems, dealt to GROUPS groups in the order of the file."""
    by_problem: dict[str, list[Prediction]] = defaultdict(list)
    for each in predictions:
        by_problem[each.problem].append(each)
    groups: list[list[Prediction]] = [[] for _ in range(min(GROUPS, len(by_problem)))]
    for position, problem in enumerate(by_problem.values()):
        groups[position % len(groups)].extend(problem)
    return groups


def _interval(
    name: str, value: float | None, replicates: Sequence[float | None]
) -> tuple[float | None, float | None]:
    from scipy.stats import t

    known = [each for each in replicates if each is not None]
    if value is None or len(known) < len(replicates):
        return None, None
    spread = sum((each - value) ** 2 for each in known)
    if not spread:  # replicates that are all the same show nothing
        return None, None
    error = math.sqrt(spread * (len(known) - 1) / len(known))
    reach = float(t.ppf(0.975, len(known) - 1)) * error
    return max(LEAST.get(name, -1.0), value - reach), min(1.0, value + reach)


def _defined(of: Statistic, predictions: Sequence[Prediction]) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about one class alone
        try:
            value = float(of(predictions))
        except ValueError:  # no decided proof at all
            return None
    return None if math.isnan(value) else value
