"""The geometry of a curriculum's charts: learning curves with the stages side by side, and dot
plots of figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proofloop.report.axes import scale, smooth, thin, ticks
from proofloop.report.curriculum import CHARTED, CurriculumData, Track, ablated
from proofloop.report.line_charts import (
    BOTTOM,
    LEFT,
    DrawnLine,
    LineChart,
    Series,
    Tick,
    described,
    drawn,
    fine_share,
    line_chart,
    points_of,
    short,
    tick_label,
)
from proofloop.report.numbers import count
from proofloop.report.run_charts import PART_STYLES, part_names
from proofloop.report.titles import PART_TITLES
from proofloop.runs.figures import Figure

CURVES_WIDTH, CURVES_HEIGHT, HEAD = 1000.0, 190.0, 36.0
MIN_LANE_WIDTH = 105.0
"""The least width of a lane, so that its stage's name fits. A chart with many lanes is wider and
scrolls.
"""

DOTS_WIDTH, DOTS_LEFT, VALUE_WIDTH, ROW, MARK_OFFSET = 480.0, 134.0, 42.0, 22.0, 4.0
MIN_KL = 1e-4
"""The lower end of the logarithmic KL axis. KL spans a factor of a thousand, and single steps
jump.
"""

ROUND = re.compile(r"(.+)_round_(\d+)")


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


@dataclass(frozen=True)
class Mark:
    """A value with its interval in a dot plot; `kind`: "ordinary" or "hard" problems."""

    kind: str
    at: float
    low: float
    high: float
    up: float
    label: str
    label_at: float


@dataclass(frozen=True)
class Row:
    """One model version in a dot plot."""

    version: str
    is_ablation: bool
    at: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class DotPlot:
    """One measured figure of all versions, a row each."""

    id: str
    title: str
    meaning: str
    description: str
    height: float
    rows: tuple[Row, ...]
    x_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Table:
    """All figures of one kind, with a row for each version; for refinement, a column for each
    round.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]


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


def dot_charts(data: CurriculumData) -> list[DotPlot]:
    """A dot plot for each figure of CHARTED that was measured."""
    found = [_dots(data, what, name) for what, name in CHARTED]
    return [chart for chart in found if chart.rows]


def _dots(data: CurriculumData, what: str, name: str) -> DotPlot:
    meaning = CHARTED[what, name]
    measured = _by_version(data, what, name)
    ends: list[float] = []
    words: list[str] = []
    for version, by_kind in measured.items():
        for kind, figure in by_kind.items():
            ends += [end for end in (figure.low, figure.high) if end is not None]
            words.append(f"{version}, {kind}: {figure}")
    marks = ticks(min(ends, default=0), max(ends, default=1), 4)
    across = scale(marks[0], marks[-1], DOTS_LEFT, DOTS_WIDTH - 2 * VALUE_WIDTH - 16)
    rows: list[Row] = []
    for place, (version, by_kind) in enumerate(measured.items()):
        at = ROW * (place + 0.5)
        rows.append(Row(version, version in ablated(data.spec), at, _marks(by_kind, at, across)))
    return DotPlot(
        id=f"{what}-{name}",
        title=meaning.title,
        meaning=meaning.meaning + ("; lower is better" if meaning.lower_is_better else ""),
        description="; ".join(words),
        height=ROW * len(measured) + 34,
        rows=tuple(rows),
        x_ticks=tuple(Tick(across(mark), tick_label(mark, marks, short)) for mark in marks),
    )


def _by_version(data: CurriculumData, what: str, name: str) -> dict[str, dict[str, Figure]]:
    """The measured values of a figure by version and by kind of problems."""
    found: dict[str, dict[str, Figure]] = {}
    for (version, measured), figures in data.figures.items():
        if measured.removesuffix("-hard") != what or name not in figures:
            continue
        if figures[name].value is not None:
            kind = "hard" if measured.endswith("-hard") else "ordinary"
            found.setdefault(version, {})[kind] = figures[name]
    return found


def _marks(
    measured: Mapping[str, Figure], at: float, across: Callable[[float], float]
) -> tuple[Mark, ...]:
    """The marks of a row: ordinary problems above hard ones. A single mark is on the line of the
    version's name.
    """
    apart = MARK_OFFSET if len(measured) > 1 else 0.0
    return tuple(_mark(kind, one, at, apart, across) for kind, one in measured.items())


def _mark(
    kind: str, one: Figure, at: float, apart: float, across: Callable[[float], float]
) -> Mark:
    is_hard = kind == "hard"
    return Mark(
        kind=kind,
        at=round(across(one.value or 0.0), 1),
        low=round(across(one.low or 0.0), 1),
        high=round(across(one.high or 0.0), 1),
        up=at + (apart if is_hard else -apart),
        label=f"{one.value:.3f}",
        label_at=DOTS_WIDTH - (0 if is_hard else VALUE_WIDTH),
    )


def refinement_charts(data: CurriculumData) -> list[LineChart]:
    """The gain from refinement by round, with a line for each version."""
    found: list[tuple[str, Mapping[str, Figure]]] = []
    kinds: dict[str, None] = {}
    for (version, what), figures in data.figures.items():
        if what == "refinement":
            found.append((version, figures))
            matches = [ROUND.fullmatch(name) for name in figures]
            kinds |= dict.fromkeys(match[1] for match in matches if match)
    return [_refined(kind, found) for kind in kinds]


def _refined(kind: str, found: Sequence[tuple[str, Mapping[str, Figure]]]) -> LineChart:
    series = [
        Series(version, f"part{(place + 1) % PART_STYLES}", _rounds(kind, figures))
        for place, (version, figures) in enumerate(found)
    ]
    title = "Pass@1"
    meaning = "share of right proofs"
    if kind != "pass_at_1":
        title = kind.replace("_", " ").capitalize()
        meaning = "share of problems whose proof with the highest self-score is right"
    return line_chart(f"refined-{kind}", title, meaning, series, short, by="round")


def _rounds(kind: str, figures: Mapping[str, Figure]) -> tuple[tuple[float, float], ...]:
    points: list[tuple[float, float]] = []
    for name, figure in figures.items():
        match = ROUND.fullmatch(name)
        if match and match[1] == kind and figure.value is not None:
            points.append((float(match[2]), figure.value))
    return tuple(points)


def tables(data: CurriculumData) -> list[Table]:
    """All measured figures, in a table for each measured role."""
    titles = dict.fromkeys(what.removesuffix("-hard") for _, what in data.figures)
    return [_table(title, data) for title in titles]


def _table(title: str, data: CurriculumData) -> Table:
    rows: dict[str, dict[str, Figure]] = {}
    for (version, what), figures in data.figures.items():
        if what.removesuffix("-hard") == title:
            for name, figure in figures.items():
                row, column = _place_in_table(version, what, name)
                rows.setdefault(row, {})[column] = figure
    columns = tuple(dict.fromkeys(name for cells in rows.values() for name in cells))
    return Table(
        title,
        columns,
        tuple((name, tuple(map(cells.get, columns))) for name, cells in rows.items()),
    )


def _place_in_table(version: str, what: str, name: str) -> tuple[str, str]:
    """The row and the column of a figure: `best_of_32_round_2` is in a row for best_of_32, in the
    column "round 2".
    """
    if match := ROUND.fullmatch(name):
        return f"{version}, {match[1].replace('_', ' ')}", f"round {match[2]}"
    return f"{version}, hard" if what.endswith("-hard") else version, name
