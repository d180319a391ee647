"""The geometry of a curriculum's measured figures: dot plots, lines of refinement, tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proofloop.report.axes import scale, ticks
from proofloop.report.curriculum import CHARTED, CurriculumData, ablated
from proofloop.report.line_charts import (
    LineChart,
    Series,
    Tick,
    line_chart,
    short,
    tick_label,
)
from proofloop.report.run_charts import PART_STYLES
from proofloop.runs.figures import Figure

DOTS_WIDTH, DOTS_LEFT, VALUE_WIDTH, ROW, MARK_OFFSET = 480.0, 134.0, 42.0, 22.0, 4.0
ROUND = re.compile(r"(.+)_round_(\d+)")


@dataclass(frozen=True)
class ValueMark:
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
    marks: tuple[ValueMark, ...]


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
) -> tuple[ValueMark, ...]:
    """The marks of a row: ordinary problems above hard ones. A single mark is on the line of the
    version's name.
    """
    apart = MARK_OFFSET if len(measured) > 1 else 0.0
    return tuple(_mark(kind, one, at, apart, across) for kind, one in measured.items())


def _mark(
    kind: str, one: Figure, at: float, apart: float, across: Callable[[float], float]
) -> ValueMark:
    is_hard = kind == "hard"
    return ValueMark(
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
