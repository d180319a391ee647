"""The geometry of the report's charts: numbers in, coordinates out. `charts.svg.jinja` draws,
`page.css` colours them.

Charts contain no colours. Each line has a CSS class, so that one SVG serves the light and the dark
theme, and a dash pattern for readers who cannot tell the colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proofloop.report.axes import SMOOTH_FROM, Point, scale, smooth, spread, thin, ticks
from proofloop.report.data import KINDS, Measured, Window
from proofloop.report.formatting import KIND_TITLES, PART_TITLES, count, share
from proofloop.schema.records import ModelRole, TrainingStep

WIDTH, HEIGHT = 360.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 112.0, 10.0, 26.0
WIDE, WIDE_HEIGHT = 760.0, 230.0
"""The sizes and margins of a chart and of a wide chart, in SVG units."""

PART_STYLES = 7
"""The number of line styles in `page.css`."""

LABEL_APART = 13.0
"""The least distance between the labels at the ends of two lines, in SVG units."""


@dataclass(frozen=True)
class Series:
    """The data of one line: its name, its CSS class and its points."""

    name: str
    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its coordinate and its text."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A drawn series: a moving mean over `raw`, the faint path of the single values, or `dots`
    without a mean.
    """

    name: str
    style: str
    path: str
    raw: str
    dots: tuple[Point, ...]
    label_at: float
    last: str


@dataclass(frozen=True)
class LineChart:
    """A chart of lines. `description` gives the content in words for screen readers; `by` names the
    horizontal axis.
    """

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
    """A bar chart of shares that add up to 1. `description` gives the content in words for screen
    readers.
    """

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


def learning_charts(steps: Mapping[ModelRole, Sequence[TrainingStep]]) -> list[LineChart]:
    """The learning curves of a run; charts without data are left out."""
    charts = [
        _by_role(
            "reward",
            "Mean reward",
            "mean reward of the sampled answers, 0 to 1",
            steps,
            "mean_reward",
        ),
        *(_parts(role, steps.get(role, ())) for role in ("verifier", "generator")),
        _by_role(
            "advantage",
            "Samples with an advantage",
            "answers whose reward differs from their group's mean: only these train the model",
            steps,
            "advantage_share",
            share,
        ),
        _by_role(
            "length",
            "Completion length",
            "mean tokens per answer",
            steps,
            "completion_length",
            count,
        ),
        _by_role("kl", "KL", "divergence from the model at the start, nats per token", steps, "kl"),
        _by_role(
            "clip",
            "Clip share",
            "tokens whose update was clipped because the probability ratio left its range",
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
    steps: Mapping[ModelRole, Sequence[TrainingStep]],
    name: str,
    write: Callable[[float], str] | None = None,
) -> LineChart:
    series = [
        Series(role, role, points_of(_numbered(taken), lambda step: step.figures.get(name)))
        for role, taken in steps.items()
    ]
    return line_chart(chart_id, title, meaning, series, write or short)


def _parts(role: ModelRole, steps: Sequence[TrainingStep]) -> LineChart:
    series = [_part(steps, name, position) for position, name in enumerate(part_names(steps))]
    meaning = "the mean of each factor of its reward"
    return line_chart(f"parts-{role}", f"Reward parts of the {role}", meaning, series, short)


def part_names(steps: Iterable[TrainingStep]) -> list[str]:
    """The names of these steps' reward factors, in drawing order."""
    found = {name for step in steps for name in step.reward_parts}
    return [name for name in PART_TITLES if name in found] + sorted(found - PART_TITLES.keys())


def _part(steps: Sequence[TrainingStep], name: str, position: int) -> Series:
    points = points_of(_numbered(steps), lambda step: step.reward_parts.get(name))
    return Series(PART_TITLES.get(name, name), f"part{position % PART_STYLES}", points)


def points_of(
    steps: Iterable[tuple[float, TrainingStep]], value_of: Callable[[TrainingStep], float | None]
) -> tuple[Point, ...]:
    """The points (position, value) of a figure; steps without it or with a non-finite value are
    left out.
    """
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
    """Place the series on common axes; `by` names the horizontal one. Series without a point are
    left out.
    """
    kept = [Series(one.name, one.style, thin(one.points)) for one in series if one.points]
    xs = [x for one in kept for x, _ in one.points] or [0.0]
    ys = [y for one in kept for _, y in one.points] or [0.0]
    x_marks = ticks(min(xs), max(xs), 4, whole=True)
    y_marks = ticks(min(ys), max(ys), 4)
    across = scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)
    last_ys = [up(smooth(one.points)[-1][1]) for one in kept]
    label_ys = spread(last_ys, LABEL_APART, TOP, HEIGHT - BOTTOM)
    lines = [drawn(one, across, up, at, write) for one, at in zip(kept, label_ys, strict=True)]
    x_ticks = [Tick(across(mark), count(mark)) for mark in x_marks if min(xs) <= mark <= max(xs)]
    y_ticks = [Tick(up(mark), tick_label(mark, y_marks, write)) for mark in y_marks]
    return LineChart(
        id=chart_id,
        title=title,
        meaning=meaning,
        description="; ".join(described(one, write, by) for one in kept),
        lines=tuple(lines),
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(y_ticks),
        by=by,
    )


def drawn(
    one: Series,
    across: Callable[[float], float],
    up: Callable[[float], float],
    end: float,
    write: Callable[[float], str],
) -> Line:
    """Draw a series: a moving mean over the faint raw values, or dots if there are few points."""
    smoothed = smooth(one.points)
    is_smooth = len(one.points) >= SMOOTH_FROM
    dots = [(round(across(x), 1), round(up(y), 1)) for x, y in one.points]
    return Line(
        name=one.name,
        style=one.style,
        path=path(smoothed, across, up),
        raw=path(one.points, across, up) if is_smooth else "",
        dots=() if is_smooth else tuple(dots),
        label_at=round(end, 1),
        last=write(smoothed[-1][1]),
    )


def described(one: Series, write: Callable[[float], str], by: str = "step") -> str:
    """The first and last point of a series in words, for screen readers."""
    first = one.points[0]
    last = one.points[-1]
    unit = by.rpartition(" ")[2]
    return (
        f"{one.name}: {write(first[1])} at {unit} {first[0]:g}, {write(last[1])} at {unit}"
        f" {last[0]:g}"
    )


def path(
    points: Sequence[Point], across: Callable[[float], float], up: Callable[[float], float]
) -> str:
    """The SVG path through the points."""
    return "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)


def outcome_bars(windows: Sequence[Window]) -> StackedBars:
    """Stacked shares of the label kinds, one bar for each window of problems."""
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
    total = sum(window.counts.values())
    x = across(window.first - 1)
    width = across(window.last) - x
    below = 0.0
    blocks = []
    for kind in KINDS:
        part = window.counts[kind] / total
        if part:
            tooltip = (
                f"problems {window.first} to {window.last}: {KIND_TITLES[kind]} {share(part)} of"
                f" {total}"
            )
            top = round(_up(below + part), 1)
            height = round(_up(below) - _up(below + part), 1)
            blocks.append(
                Block(kind, round(x, 1), top, round(max(width - 1.5, 1), 1), height, tooltip)
            )
            below += part
    return blocks


def _outcomes_described(windows: Sequence[Window]) -> str:
    if not windows:
        return "no label yet"
    return f"{_window_described(windows[0])}; {_window_described(windows[-1])}"


def _window_described(window: Window) -> str:
    total = sum(window.counts.values())
    shares = ", ".join(
        f"{KIND_TITLES[kind]} {share(window.counts[kind] / total)}"
        for kind in KINDS
        if kind != "graded" or window.counts[kind]
    )
    return f"problems {window.first} to {window.last}: {shares}"


def whiskers(before: Measured, after: Measured) -> list[Whisker]:
    """The measured values with their intervals, on a scale of 0 to 100."""
    sides = (("before", before), ("after", after))
    return [_whisker(side, one) for side, one in sides if one.value is not None]


def _whisker(side: str, measured: Measured) -> Whisker:
    value = measured.value or 0.0
    low = value if measured.low is None else measured.low
    high = value if measured.high is None else measured.high
    return Whisker(side, _percent(value), _percent(low), _percent(high))


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)


def short(value: float) -> str:
    """Two decimals; two significant digits for values below 0.1."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def fine_share(value: float) -> str:
    """A share in per cent; two significant digits for values below 10 %."""
    return share(value) if value >= 0.1 or value == 0 else f"{100 * value:.2g}\N{NO-BREAK SPACE}%"


def tick_label(mark: float, marks: Sequence[float], write: Callable[[float], str]) -> str:
    """A mark's text, with as many digits as the distance between the marks needs; shares are in per
    cent.
    """
    size = math.log10(marks[1] - marks[0]) + 1e-9
    if write in (share, fine_share):
        digits = max(0, -math.floor(size + 2))
        return f"{100 * mark:.{digits}f}\N{NO-BREAK SPACE}%"
    digits = max(0, -math.floor(size))
    return f"{mark:,.{digits}f}"
