"""The geometry of a chart of lines: numbers in, coordinates out.

Charts contain no colours. Each line has a CSS class, so that one SVG serves the light and the dark
theme, and a dash pattern for readers who cannot tell the colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from proofloop.report.axes import SMOOTH_FROM, Point, scale, smooth, spread, thin, ticks
from proofloop.report.numbers import count, share
from proofloop.schema.records import TrainingStep

WIDTH, HEIGHT = 360.0, 200.0
LEFT, TOP, BOTTOM = 46.0, 10.0, 26.0
"""The size and the margins of a chart, in SVG units. The labels of the lines decide the right
margin.
"""

LETTER_WIDTH = 7.0
"""The width of a letter of a line's label, bold and in a wide font, in SVG units."""

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
class DrawnLine:
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
    """A chart of lines, which end at `right`. `description` gives the content in words for screen
    readers; `by` names the horizontal axis.
    """

    id: str
    title: str
    meaning: str
    description: str
    lines: tuple[DrawnLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    by: str
    right: float


def points_of(
    steps: Iterable[tuple[float, TrainingStep]], value_of: Callable[[TrainingStep], float | None]
) -> tuple[Point, ...]:
    """The points (position, value) of a figure; steps without it or with a non-finite value are
    left out.
    """
    found = ((at, value_of(step)) for at, step in steps)
    return tuple((at, value) for at, value in found if value is not None and math.isfinite(value))


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
    ends = [smooth(one.points)[-1][1] for one in kept]
    labels = (f"{one.name} {write(end)}" for one, end in zip(kept, ends, strict=True))
    right = WIDTH - LABEL_APART - LETTER_WIDTH * max(map(len, labels), default=0)
    across = scale(min(xs), max(xs), LEFT, right)
    up = scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)
    label_ys = spread([up(end) for end in ends], LABEL_APART, TOP, HEIGHT - BOTTOM)
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
        right=round(right, 1),
    )


def drawn(
    one: Series,
    across: Callable[[float], float],
    up: Callable[[float], float],
    end: float,
    write: Callable[[float], str],
) -> DrawnLine:
    """Draw a series: a moving mean over the faint raw values, or dots if there are few points."""
    smoothed = smooth(one.points)
    is_smooth = len(one.points) >= SMOOTH_FROM
    dots = [(round(across(x), 1), round(up(y), 1)) for x, y in one.points]
    return DrawnLine(
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
