"""The charts of a run's report: learning curves, label outcomes, and intervals before and after
training. `charts.svg.jinja` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proofloop.report.axes import scale, ticks
from proofloop.report.data import KINDS, Window
from proofloop.report.line_charts import (
    BOTTOM,
    LEFT,
    TOP,
    LineChart,
    Series,
    Tick,
    fine_share,
    line_chart,
    points_of,
    short,
)
from proofloop.report.numbers import count, share
from proofloop.report.titles import KIND_TITLES, PART_TITLES
from proofloop.runs.figures import Figure
from proofloop.schema.records import ModelRole, TrainingStep

WIDE, WIDE_HEIGHT = 760.0, 230.0
"""The size of a wide chart, in SVG units."""

PART_STYLES = 7
"""The number of line styles in `page.css`."""


@dataclass(frozen=True)
class BarBlock:
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
    blocks: tuple[BarBlock, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Whisker:
    """A value with its interval on a scale of 0 to 100."""

    side: str
    at: float
    low: float
    high: float


def learning_charts(steps: Mapping[str, Sequence[TrainingStep]]) -> list[LineChart]:
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
    steps: Mapping[str, Sequence[TrainingStep]],
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


def _numbered(steps: Sequence[TrainingStep]) -> list[tuple[float, TrainingStep]]:
    return [(float(step.step), step) for step in steps]


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


def _stack(window: Window, across: Callable[[float], float]) -> list[BarBlock]:
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
                BarBlock(kind, round(x, 1), top, round(max(width - 1.5, 1), 1), height, tooltip)
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


def whiskers(before: Figure, after: Figure) -> list[Whisker]:
    """The measured values with their intervals, on a scale of 0 to 100."""
    sides = (("before", before), ("after", after))
    return [_whisker(side, one) for side, one in sides if one.value is not None]


def _whisker(side: str, measured: Figure) -> Whisker:
    value = measured.value or 0.0
    low = value if measured.low is None else measured.low
    high = value if measured.high is None else measured.high
    return Whisker(side, _percent(value), _percent(low), _percent(high))


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)
