"""The agreement of predictions with people's grades, with 95 % intervals: problems are clusters.

Means have the intervals of `runs.figures`. F1, the kappas, Kendall's tau and the area under the ROC
curve have those of a jackknife that leaves out groups of problems. Tests compare all of them with
scikit-learn and SciPy, whose fixed costs of a call outweigh these few lines many times.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from proofloop.judging.predictions import Prediction
from proofloop.runs.figures import Clusters, Figure
from proofloop.runs.grading.agreement import Agreement

GROUPS = 10
"""Of problems that the jackknife leaves out in turn. Fewer problems: one each."""

LEAST = {"f1": 0.0, "auroc": 0.0}
"""The least value of a statistic, where it is not -1."""

T975 = (
    *(12.7062047364, 4.3026527297, 3.1824463053, 2.7764451052, 2.5705818356),
    *(2.4469118511, 2.3646242516, 2.3060041352, 2.2621571628),
)
"""The 97.5 % quantiles of Student's t for 1 to GROUPS - 1 degrees of freedom."""

Pair = tuple[float, float]

MEANS = (
    "accuracy",
    "precision",
    "recall",
    "false_accept_rate",
    "mae",
    "leniency",
    "brier",
    "undecided",
)


def mean_figures(
    predictions: Sequence[Prediction], names: Sequence[str] = MEANS
) -> dict[str, Figure]:
    """The figures that are means.

    `precision` is over accepted proofs, `recall` over right ones, `false_accept_rate` over wrong
    ones. `accuracy`, `mae` and `leniency` (the mean of score minus truth) are over decided ones.
    Where the verifier gives points, `mae` and `leniency` compare their mean with people's grade.
    """
    found = {name: Clusters() for name in names}
    for each in predictions:
        values = _values(each)
        for name, clusters in found.items():
            if (value := values[name]) is not None:
                clusters.add(each.problem, value)
    figures = {name: clusters.figure() for name, clusters in found.items()}
    if "leniency" in figures:
        figures["leniency"] = _signed(figures["leniency"])
    return figures


def _values(one: Prediction) -> dict[str, float | None]:
    """The contribution of one prediction to each mean; None where it does not count."""
    is_known, accepted, error = one.score is not None, float(one.is_accepted), one.error
    sure = None if one.strength is None else (one.strength - one.is_right) ** 2
    return {
        "accuracy": float(one.score == one.truth) if is_known else None,
        "precision": float(one.is_right) if one.is_accepted else None,
        "recall": accepted if one.is_right else None,
        "false_accept_rate": None if one.is_right else accepted,
        "mae": None if error is None else abs(error),
        "leniency": None if error is None else (error + 1) / 2,
        "brier": sure,
        "undecided": float(not is_known),
    }


def _signed(figure: Figure) -> Figure:
    """A figure in [0, 1] as one in [-1, 1]."""
    bounds = {
        name: None if value is None else 2 * value - 1
        for name, value in figure.model_dump(exclude={"cases"}).items()
    }
    return Figure(**bounds, cases=figure.cases)


def values(predictions: Sequence[Prediction]) -> dict[str, float | None]:
    """The figures that are not means; None where one is not defined, as with one class alone."""
    scores = Counter((each.truth, each.score) for each in predictions if each.score is not None)
    ranked = [(each, each.strength) for each in predictions if each.strength is not None]
    agreement = Agreement("people", "judges", scores)
    return {
        "f1": _f1(predictions),
        "kappa": agreement.kappa,
        "weighted_kappa": agreement.weighted_kappa,
        "kendall_tau": _kendall_tau([(each.grade, strength) for each, strength in ranked]),
        "auroc": _auroc([(each.is_right, strength) for each, strength in ranked]),
    }


def _f1(predictions: Sequence[Prediction]) -> float | None:
    marks = Counter((each.is_right, each.is_accepted) for each in predictions)
    missed = marks[True, False] + marks[False, True]
    both = 2 * marks[True, True]
    return both / (both + missed) if both + missed else None


def _kendall_tau(pairs: Sequence[Pair]) -> float | None:
    """Tau-b, which corrects for ties (Kendall 1945)."""
    order = _order(pairs)
    untied = order.untied_x * order.untied_y
    return order.net / math.sqrt(untied) if untied else None


def _auroc(pairs: Sequence[Pair]) -> float | None:
    """The share of pairs of a right and a wrong proof in which the right one is stronger; ties
    count half (Mann and Whitney 1947).
    """
    order = _order(pairs)
    return (1 + order.net / order.untied_x) / 2 if order.untied_x else None


class _Order(NamedTuple):
    """The pairs of cases that have the same order in x and y, less those with opposite orders; and
    the pairs that are no tie in x, and in y.
    """

    net: int
    untied_x: int
    untied_y: int


def _order(pairs: Sequence[Pair]) -> _Order:
    net, lower = 0, list[float]()  # the y of all cases with a lower x
    for _, cases in groupby(sorted(pairs), key=itemgetter(0)):
        same = [y for _, y in cases]
        net += sum(bisect_left(lower, y) + bisect_right(lower, y) - len(lower) for y in same)
        lower = sorted(lower + same)
    return _Order(net, *(_untied(Counter(side)) for side in ([x for x, _ in pairs], lower)))


def _untied(counts: Counter[float]) -> int:
    return math.comb(counts.total(), 2) - sum(math.comb(count, 2) for count in counts.values())


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
    known = [each for each in replicates if each is not None]
    if value is None or len(known) < len(replicates):
        return None, None
    spread = sum((each - value) ** 2 for each in known)
    error = math.sqrt(spread * (len(known) - 1) / len(known))
    reach = T975[len(known) - 2] * error
    return max(LEAST.get(name, -1.0), value - reach), min(1.0, value + reach)
