"""The page of judges: figures, plots and the worst disagreements in one HTML file, which loads
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from proofloop.judging.disagreements import worst
from proofloop.judging.figures import JudgeFigures, Point
from proofloop.judging.rows import JudgedProof
from proofloop.judging.tables import rounded_down, shown, side_by_side
from proofloop.report import line_charts, write_whole
from proofloop.report.line_charts import LineChart, Series, fine_share, line_chart
from proofloop.report.page import document
from proofloop.store import Store

STYLES = ("part1", "part3", "part4", "part2", "part5", "part6")
"""Of the lines, one for each run and way."""

MEANINGS = {
    "accuracy": "Share of decided proofs with the right score.",
    "false_accept_rate": "Share of wrong proofs that are accepted.",
    "recall": "Share of right proofs that are accepted.",
}

MEANING_OF_FIGURE = {
    "accuracy": "decided proofs with people's score",
    "precision": "accepted proofs that are right",
    "recall": "right proofs that are accepted",
    "false_accept_rate": "wrong proofs that are accepted",
    "mae": "mean distance of the score from people's",
    "leniency": "mean of score minus people's; above 0 is lenient",
    "brier": "mean squared distance of the mean critique from right or wrong",
    "undecided": "proofs without a score",
    "f1": "of accepting, precision and recall together",
    "kappa": "Cohen's kappa of the scores",
    "weighted_kappa": "the same with quadratic weights",
    "kendall_tau": "rank correlation with people's grades",
    "auroc": "right proof above a wrong one, by mean critique",
    "self_consistency": "two critiques of a proof with the same score",
    "unreadable": "critiques without a readable score",
    "failed": "critiques that the engine failed to give",
    "solved: solved": "proofs that pass all n critiques",
    "solved: false_accept_rate": "wrong proofs that pass all n critiques",
    "solved: wrong_among_solved": "proofs that pass all n critiques and are wrong",
    "knock-out: any_wrong": "problems whose accepted proof, picked at random, is wrong",
    "knock-out: highest_mean_wrong": "the same for an accepted proof with the highest mean",
    "knock-out: winner_wrong": "the same for the winner of the knock-out",
    "knock-out: false_accept_rate_before": "wrong proofs that are accepted",
    "knock-out: false_accept_rate_after": "wrong proofs that win their knock-out",
    "knock-out: contradictory": "pairs in which the place decided, not the proof",
}

JudgedRun = tuple[Sequence[JudgedProof], JudgeFigures]


def write_page(store: Store, runs: Sequence[JudgedRun], file: Path) -> None:
    """Write the page to `file`, whole or not at all. Raises ConfigError without the extra
    `report`.
    """
    write_whole(render(store, runs).encode("utf-8", "replace"), file)


def render(store: Store, runs: Sequence[JudgedRun]) -> str:
    """The page as HTML."""
    judges = [figures for _, figures in runs]
    names: dict[str, Any] = {
        "what": "judges",
        "name": " and ".join(judge.run_id for judge in judges),
        "judges": judges,
        "columns": side_by_side(judges),
        "meanings": MEANING_OF_FIGURE,
        "shown": shown,
        "rounded_down": rounded_down,
        "charts": list(_charts(judges)),
        "disagreements": [
            found for rows, judge in runs for found in worst(store, judge.run_id, rows)
        ],
    }
    return document("judges.html.jinja", "proofloop.judging", **names)


def _charts(judges: Sequence[JudgeFigures]) -> Iterator[LineChart]:
    for name, meaning in MEANINGS.items():
        if any(judge.n > 1 for judge in judges):
            title = name.replace("_", " ")
            series = _series(judges, lambda point: point.critiques, _value_of(name))
            yield line_chart(name, title, meaning, series, fine_share, "critiques of a proof")
    if any(point.tokens for judge in judges for point in judge.by_count):
        yield line_chart(
            "frontier",
            "error against cost",
            "Mean distance of the score from people's, by what a proof costs.",
            _series(judges, lambda point: point.tokens, _value_of("mae")),
            line_charts.short,
            "tokens of a proof",
        )
    yield _reliability(judges)


def _value_of(name: str) -> Callable[[Point], float | None]:
    def value(point: Point) -> float | None:
        figure = point.figures.get(name)
        return figure.value if figure else None

    return value


def _series(
    judges: Sequence[JudgeFigures],
    across: Callable[[Point], float],
    up: Callable[[Point], float | None],
) -> list[Series]:
    lines = [
        (judge, way, [point for point in judge.by_count if point.way == way])
        for judge in judges
        for way in judge.ways
    ]
    return [
        Series(
            _label(judges, judge, way),
            STYLES[position % len(STYLES)],
            tuple((across(point), y) for point in points if (y := up(point)) is not None),
        )
        for position, (judge, way, points) in enumerate(lines)
    ]


def _label(judges: Sequence[JudgeFigures], judge: JudgeFigures, way: str) -> str:
    way = way.replace("_", "-")
    return f"{judge.run_id} {way}" if len(judges) > 1 else way


def _reliability(judges: Sequence[JudgeFigures]) -> LineChart:
    series = [Series("perfect", "part0", ((0.0, 0.0), (100.0, 1.0)))]
    for judge in judges:
        for way, bins in judge.reliability.items():
            points = tuple((100 * each.strength, each.right) for each in bins)
            place = STYLES[(len(series) - 1) % len(STYLES)]
            series.append(Series(_label(judges, judge, way), place, points))
    return line_chart(
        "reliability",
        "reliability",
        "Share of right proofs, by the mean of their critiques in per cent.",
        series,
        fine_share,
        "mean critique",
    )
