"""The geometry of the report's charts: numbers in, coordinates out. `charts.svg.jinja` draws, `page.css` colours them.

No chart knows a colour: lines carry a class each, so that one SVG serves the light and the dark theme, and a dash each
for readers who do not tell colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proofloop.records import TrainedRole, TrainingStep
from proofloop.report.axes import SMOOTH_FROM, Point, scale, smooth, spread, thin, ticks
from proofloop.report.data import KINDS, Measured, Window
from proofloop.report.wording import KIND_TITLES, PART_TITLES, count, share

WIDTH, HEIGHT = 360.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 112.0, 10.0, 26.0
WIDE, WIDE_HEIGHT = 760.0, 230.0
PART_STYLES = 7
"""How many looks of lines `page.css` tells apart."""
LABEL_APART = 13.0
"""Least distance between the names at the ends of two lines, in the chart's units."""


@dataclass(frozen=True)
class Series:
    """One line: a name, a class for its looks, and its points."""

    name: str
    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A drawn series: `raw` is the faint path below a moving mean; without one, `dots` mark the values."""

    name: str
    style: str
    path: str
    raw: str
    dots: tuple[Point, ...]
    label_at: float
    last: str


@dataclass(frozen=True)
class LineChart:
    """`description` says in words what the eye would see."""

    id: str
    title: str
    meaning: str
    description: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    by: str


@dataclass(frozen=True)
class Block:
    """One part of a stacked bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    tooltip: str


@dataclass(frozen=True)
class StackedBars:
    description: str
    blocks: tuple[Block, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Whisker:
    """A value with its interval on a scale of 0 to 100."""

    side: str
    at: float
    low: float
    high: float


def learning_charts(steps: Mapping[TrainedRole, Sequence[TrainingStep]]) -> list[LineChart]:
    """The curves of a run's training, those without a point left out."""
    charts = [
        _by_role("reward", "Mean reward", "what a sampled answer earned, 0 to 1", steps, "mean_reward"),
        *(_parts(role, steps.get(role, ())) for role in ("verifier", "generator")),
        _by_role(
            "advantage",
            "Samples with an advantage",
            "answers that earned other than their group's mean: only they teach",
            steps,
            "advantage_share",
            share,
        ),
        _by_role("length", "Completion length", "mean tokens an answer", steps, "completion_length", count),
        _by_role("kl", "KL", "how far the model has moved from the one it began as, nats a token", steps, "kl"),
        _by_role(
            "clip",
            "Clip share",
            "tokens whose step was cut off because the model moved too far",
            steps,
            "clip_share",
            fine_share,
        ),
    ]
    return [chart for chart in charts if chart.lines]


def _by_role(
    chart_id: str,
    title: str,
    meaning: str,
    steps: Mapping[TrainedRole, Sequence[TrainingStep]],
    name: str,
    write: Callable[[float], str] | None = None,
) -> LineChart:
    series = [
        Series(role, role, points_of(_numbered(taken), lambda step: step.figures.get(name)))
        for role, taken in steps.items()
    ]
    return line_chart(chart_id, title, meaning, series, write or short)


def _parts(role: TrainedRole, steps: Sequence[TrainingStep]) -> LineChart:
    series = [_part(steps, name, position) for position, name in enumerate(part_names(steps))]
    meaning = "the mean of each factor of its reward"
    return line_chart(f"parts-{role}", f"Reward parts of the {role}", meaning, series, short)


def part_names(steps: Iterable[TrainingStep]) -> list[str]:
    """The factors of these steps' rewards, in the order in which they are drawn."""
    found = {name for step in steps for name in step.reward_parts}
    return [name for name in PART_TITLES if name in found] + sorted(found - PART_TITLES.keys())


def _part(steps: Sequence[TrainingStep], name: str, position: int) -> Series:
    points = points_of(_numbered(steps), lambda step: step.reward_parts.get(name))
    return Series(PART_TITLES.get(name, name), f"part{position % PART_STYLES}", points)


def points_of(
    steps: Iterable[tuple[float, TrainingStep]], value_of: Callable[[TrainingStep], float | None]
) -> tuple[Point, ...]:
    """What these steps have of a figure, each at its place; numbers that are none are left out."""
    found = ((at, value_of(step)) for at, step in steps)
    return tuple((at, value) for at, value in found if value is not None and math.isfinite(value))


def _numbered(steps: Sequence[TrainingStep]) -> list[tuple[float, TrainingStep]]:
    return [(float(step.step), step) for step in steps]


def line_chart(
    chart_id: str,
    title: str,
    meaning: str,
    series: Sequence[Series],
    write: Callable[[float], str],
    by: str = "training step",
) -> LineChart:
    """Place the series on common axes, `by` what runs from left to right. Series without a point are left out."""
    kept = [Series(one.name, one.style, thin(one.points)) for one in series if one.points]
    xs = [x for one in kept for x, _ in one.points] or [0.0]
    ys = [y for one in kept for _, y in one.points] or [0.0]
    x_marks, y_marks = ticks(min(xs), max(xs), 4, whole=True), ticks(min(ys), max(ys), 4)
    across = scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)
    ends = spread([up(smooth(one.points)[-1][1]) for one in kept], LABEL_APART, TOP, HEIGHT - BOTTOM)
    return LineChart(
        id=chart_id,
        title=title,
        meaning=meaning,
        description="; ".join(described(one, write, by) for one in kept),
        lines=tuple(drawn(one, across, up, end, write) for one, end in zip(kept, ends, strict=True)),
        x_ticks=tuple(Tick(across(mark), count(mark)) for mark in x_marks if min(xs) <= mark <= max(xs)),
        y_ticks=tuple(Tick(up(mark), tick_label(mark, y_marks, write)) for mark in y_marks),
        by=by,
    )


def drawn(
    one: Series,
    across: Callable[[float], float],
    up: Callable[[float], float],
    end: float,
    write: Callable[[float], str],
) -> Line:
    """A series as it is drawn: the moving mean over its faint raw values, or dots where there are few."""
    smoothed = smooth(one.points)
    is_smooth = len(one.points) >= SMOOTH_FROM
    return Line(
        name=one.name,
        style=one.style,
        path=path(smoothed, across, up),
        raw=path(one.points, across, up) if is_smooth else "",
        dots=() if is_smooth else tuple((round(across(x), 1), round(up(y), 1)) for x, y in one.points),
        label_at=round(end, 1),
        last=write(smoothed[-1][1]),
    )


def described(one: Series, write: Callable[[float], str], by: str = "step") -> str:
    first, last, what = one.points[0], one.points[-1], by.rpartition(" ")[2]
    return f"{one.name}: {write(first[1])} at {what} {first[0]:g}, {write(last[1])} at {what} {last[0]:g}"


def path(points: Sequence[Point], across: Callable[[float], float], up: Callable[[float], float]) -> str:
    return "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)


def outcome_bars(windows: Sequence[Window]) -> StackedBars:
    """Stacked shares of the label kinds, one bar a stretch of the run."""
    last = windows[-1].last if windows else 1
    across = scale(windows[0].first - 1 if windows else 0, last, LEFT, WIDE - 4)
    blocks = [block for window in windows for block in _stack(window, across)]
    marks = [mark for mark in ticks(1, last, 8, whole=True) if 1 <= mark <= last]
    return StackedBars(
        description=_outcomes_described(windows),
        blocks=tuple(blocks),
        x_ticks=tuple(Tick(across(mark - 0.5), count(mark)) for mark in marks),
        y_ticks=tuple(Tick(_up(value), share(value)) for value in (0.0, 0.5, 1.0)),
    )


def _up(value: float) -> float:
    return scale(0, 1, WIDE_HEIGHT - BOTTOM, TOP)(value)


def _stack(window: Window, across: Callable[[float], float]) -> list[Block]:
    total, below, blocks = sum(window.counts.values()), 0.0, []
    x, width = across(window.first - 1), across(window.last) - across(window.first - 1)
    for kind in KINDS:
        part = window.counts[kind] / total
        if part:
            tooltip = f"problems {window.first} to {window.last}: {KIND_TITLES[kind]} {share(part)} of {total}"
            top, height = round(_up(below + part), 1), round(_up(below) - _up(below + part), 1)
            blocks.append(Block(kind, round(x, 1), top, round(max(width - 1.5, 1), 1), height, tooltip))
            below += part
    return blocks


def _outcomes_described(windows: Sequence[Window]) -> str:
    if not windows:
        return "no label yet"
    first, last = windows[0], windows[-1]
    return f"{_window_described(first)}; {_window_described(last)}"


def _window_described(window: Window) -> str:
    total = sum(window.counts.values())
    shares = ", ".join(f"{KIND_TITLES[kind]} {share(window.counts[kind] / total)}" for kind in KINDS)
    return f"problems {window.first} to {window.last}: {shares}"


def whiskers(before: Measured, after: Measured) -> list[Whisker]:
    """Both values with their intervals, on a scale of 0 to 100."""
    return [_whisker(side, one) for side, one in (("before", before), ("after", after)) if one.value is not None]


def _whisker(side: str, measured: Measured) -> Whisker:
    value = measured.value or 0.0
    low = value if measured.low is None else measured.low
    high = value if measured.high is None else measured.high
    return Whisker(side, *(round(100 * min(max(end, 0.0), 1.0), 2) for end in (value, low, high)))


def short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def fine_share(value: float) -> str:
    return share(value) if value >= 0.1 or value == 0 else f"{100 * value:.2g}\N{NO-BREAK SPACE}%"


def tick_label(mark: float, marks: Sequence[float], write: Callable[[float], str]) -> str:
    """Plain numbers with as many digits as the distance between the marks needs; shares as per cent."""
    step = marks[1] - marks[0]
    if write in (share, fine_share):
        return f"{100 * mark:.{max(0, -math.floor(math.log10(step) + 2 + 1e-9))}f}\N{NO-BREAK SPACE}%"
    return f"{mark:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
