"""The geometry of a curriculum's learning curves, with the stages side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proofloop.report.axes import scale, smooth, thin, ticks
from proofloop.report.curriculum import Track
from proofloop.report.line_charts import (
    BOTTOM,
    LEFT,
    DrawnLine,
    Series,
    Tick,
    described,
    drawn,
    fine_share,
    points_of,
    short,
    tick_label,
)
from proofloop.report.numbers import count
from proofloop.report.run_charts import PART_STYLES, part_names
from proofloop.report.titles import PART_TITLES

CURVES_WIDTH, CURVES_HEIGHT, HEAD = 1000.0, 190.0, 36.0
MIN_LANE_WIDTH = 105.0
"""The least width of a lane, so that its stage's name fits. A chart with many lanes is wider and
scrolls.
"""

MIN_KL = 1e-4
"""The lower end of the logarithmic KL axis. KL spans a factor of a thousand, and single steps
jump.
"""


@dataclass(frozen=True)
class LaneData:
    """The data of one lane. `note`: its second line; None: the first and last value of a line."""

    title: str
    note: str | None
    planned_steps: int
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Lane:
    """One stage's part of a chart; it begins at the x coordinate `left`."""

    title: str
    note: str
    left: float
    lines: tuple[DrawnLine, ...]


@dataclass(frozen=True)
class LearningCurves:
    """One training figure over the whole curriculum, with a lane for each stage."""

    id: str
    title: str
    meaning: str
    description: str
    width: float
    lanes: tuple[Lane, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def learning_curves(tracks: Sequence[Track]) -> list[LearningCurves]:
    """The learning curves of a curriculum; figures without data and a truncated share of 0
    throughout are left out.
    """
    entropy = "of the next token, nats; near 0, all answers are the same"
    shown = [
        _curves(
            "reward",
            "Mean reward",
            "mean reward of the sampled answers, 0 to 1",
            _lanes(tracks, "mean_reward"),
        ),
        _curves(
            "parts",
            "Parts of the reward",
            "means of its factors and the predicted score",
            _part_lanes(tracks),
        ),
        _curves(
            "kl",
            "KL",
            "to the stage's reference, nats per token, log scale",
            _lanes(tracks, "kl", _log),
            _unlog,
        ),
        _curves("entropy", "Entropy", entropy, _lanes(tracks, "entropy")),
        _curves(
            "length", "Length", "mean tokens per answer", _lanes(tracks, "completion_length"), count
        ),
    ]
    if any(step.figures.get("truncated_share") for track in tracks for _, step in track.steps):
        truncated = _lanes(tracks, "truncated_share")
        shown.append(
            _curves(
                "cut", "Truncated", "share of answers cut off at max_tokens", truncated, fine_share
            )
        )
    return [curves for curves in shown if curves]


def styles_of_parts(tracks: Sequence[Track]) -> dict[str, str]:
    """The CSS class of each reward factor by name, the same in all stages."""
    names = part_names(step for track in tracks for _, step in track.steps)
    return {name: f"part{position % PART_STYLES}" for position, name in enumerate(names)}


def _log(value: float) -> float:
    return math.log10(max(value, MIN_KL))


def _unlog(power: float) -> str:
    return f"{10**power:{'.2g' if power >= -2 else '.1g'}}"


def _lanes(
    tracks: Sequence[Track], figure: str, drawn_at: Callable[[float], float] = lambda value: value
) -> list[LaneData]:
    """One lane for each stage; its ablation and its refreshes are drawn in the same lane."""
    series: dict[str, list[Series]] = {}
    planned: dict[str, int] = {}
    for track in tracks:
        found = points_of(track.steps, lambda step: step.figures.get(figure))
        points = tuple((at, drawn_at(value)) for at, value in found)
        style = track.role if track.name in ("", "refresh") else f"{track.role} ablation"
        series.setdefault(track.stage, []).append(Series(track.title, style, points))
        planned.setdefault(track.stage, track.planned_steps)
    return [LaneData(stage, None, planned[stage], tuple(each)) for stage, each in series.items()]


def _part_lanes(tracks: Sequence[Track]) -> list[LaneData]:
    """One lane for each track, since each has several lines."""
    styles = styles_of_parts(tracks)
    lanes: list[LaneData] = []
    for track in tracks:
        series = tuple(_part(track, name, style) for name, style in styles.items())
        lanes.append(LaneData(track.stage, track.name, track.planned_steps, series))
    return lanes


def _part(track: Track, name: str, style: str) -> Series:
    points = points_of(track.steps, lambda step: step.reward_parts.get(name))
    return Series(f"{track.title}: {PART_TITLES.get(name, name)}", style, points)


def _curves(
    chart_id: str,
    title: str,
    meaning: str,
    data: Sequence[LaneData],
    write: Callable[[float], str] = short,
) -> LearningCurves | None:
    """Place the lanes beside each other on one vertical axis; None if there is no point."""
    series = [one for lane in data for one in lane.series if one.points]
    ys = [y for one in series for _, y in one.points]
    if not ys:
        return None
    width = max(CURVES_WIDTH, LEFT + MIN_LANE_WIDTH * len(data))
    lane_width = (width - LEFT) / len(data)
    is_log = write is _unlog
    marks = ticks(min(ys), max(ys), 6 if is_log else 4, whole=is_log)
    up = scale(marks[0], marks[-1], CURVES_HEIGHT - BOTTOM, HEAD)
    lanes: list[Lane] = []
    x_ticks: list[Tick] = []
    for place, lane in enumerate(data):
        left = LEFT + lane_width * place
        lanes.append(_lane(lane, left, lane_width, up, write))
        x_ticks.append(Tick(left + lane_width / 2, _extent(lane)))
    y_ticks: list[Tick] = []
    for mark in marks:
        label = f"{10**mark:g}" if is_log else tick_label(mark, marks, write)
        y_ticks.append(Tick(up(mark), label))
    return LearningCurves(
        id=chart_id,
        title=title,
        meaning=meaning,
        description="; ".join(described(one, write) for one in series),
        width=width,
        lanes=tuple(lanes),
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(y_ticks),
    )


def _lane(
    data: LaneData,
    left: float,
    width: float,
    up: Callable[[float], float],
    write: Callable[[float], str],
) -> Lane:
    kept = [Series(one.name, one.style, thin(one.points)) for one in data.series if one.points]
    last = max([data.planned_steps, *(one.points[-1][0] for one in kept)])
    across = scale(0, last, left + 4, left + width - 4)
    lines = tuple(
        drawn(Series(described(one, write), one.style, one.points), across, up, 0, write)
        for one in kept
    )
    note = _ends(kept, write) if data.note is None else data.note
    return Lane(data.title, note, round(left, 1), lines)


def _ends(series: Sequence[Series], write: Callable[[float], str]) -> str:
    """The first and the last drawn value of the first line."""
    if not series:
        return ""
    smoothed = smooth(series[0].points)
    return f"{write(smoothed[0][1])} \N{RIGHTWARDS ARROW} {write(smoothed[-1][1])}"


def _extent(data: LaneData) -> str:
    """The steps taken, of the planned ones."""
    planned = data.planned_steps
    taken = max((one.points[-1][0] for one in data.series if one.points), default=0.0)
    if not taken:
        return "not started"
    if taken >= planned:
        return f"{count(planned)} steps"
    return f"{taken:.0f} of {count(planned)} steps"
