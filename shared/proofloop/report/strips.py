"""The geometry of a curriculum's charts: learning curves with the stages side by side, and measured figures as dots."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proofloop.measure import Figure
from proofloop.report.axes import scale, smooth, thin, ticks
from proofloop.report.curriculum import CHARTED, CurriculumData, Track, ablated
from proofloop.report.figures import (
    BOTTOM,
    LEFT,
    PART_STYLES,
    Line,
    LineChart,
    Series,
    Tick,
    described,
    drawn,
    fine_share,
    line_chart,
    part_names,
    points_of,
    short,
    tick_label,
)
from proofloop.report.wording import PART_TITLES, count

STRIP_WIDTH, STRIP_HEIGHT, HEAD = 1000.0, 190.0, 36.0
LANE_LEAST = 105.0
"""Width of a lane that its stage's name fits into; a strip of many lanes is wider, and scrolls."""
DOTS_WIDTH, DOTS_LEFT, VALUE_WIDTH, ROW, APART = 480.0, 134.0, 42.0, 22.0, 4.0
KL_LEAST = 1e-4
"""KL is drawn by its logarithm, from here on: it lies a thousandfold apart, and single steps leap."""
ROUND = re.compile(r"(.+)_round_(\d+)")

Wanted = tuple[str, str | None, int, Sequence[Series]]
"""What goes into a lane: its title, a second line (None: the first series' ends), its stage's steps, the series."""


@dataclass(frozen=True)
class Lane:
    """One stage's part of a strip, from `left` on."""

    title: str
    note: str
    left: float
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Strip:
    """A figure of the training over the whole curriculum, from left to right."""

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
    """A value with its interval; `kind`: "ordinary" or "hard" problems."""

    kind: str
    at: float
    low: float
    high: float
    up: float
    label: str
    label_at: float


@dataclass(frozen=True)
class Row:
    version: str
    is_ablation: bool
    at: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Dots:
    """One measured figure of every version."""

    id: str
    title: str
    meaning: str
    description: str
    height: float
    rows: tuple[Row, ...]
    x_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Table:
    """All figures of one kind: a row a version, for refinement a column a round."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]


def strips(tracks: Sequence[Track]) -> list[Strip]:
    """The curves of a curriculum's training; without figures that no step has, and cut-off shares that are all 0."""
    is_cut = any(step.figures.get("truncated_share") for track in tracks for _, step in track.steps)
    entropy = "of the next token, nats: near 0 all answers are the same"
    shown = [
        _strip("reward", "Mean reward", "what a sampled answer earned, 0 to 1", _lanes(tracks, "mean_reward")),
        _strip("parts", "Parts of the reward", "means of its factors, and the score given", _part_lanes(tracks)),
        _strip("kl", "KL", "to the stage's reference, nats a token, logarithmic", _lanes(tracks, "kl", _log), _unlog),
        _strip("entropy", "Entropy", entropy, _lanes(tracks, "entropy")),
        _strip("length", "Length", "mean tokens an answer", _lanes(tracks, "completion_length"), count),
        _strip("cut", "Cut off", "share of answers", _lanes(tracks, "truncated_share"), fine_share) if is_cut else None,
    ]
    return [strip for strip in shown if strip]


def styles_of_parts(tracks: Sequence[Track]) -> dict[str, str]:
    """The class of each factor of the reward, by its name: the same in every stage."""
    names = part_names(step for track in tracks for _, step in track.steps)
    return {name: f"part{position % PART_STYLES}" for position, name in enumerate(names)}


def _log(value: float) -> float:
    return math.log10(max(value, KL_LEAST))


def _unlog(power: float) -> str:
    return f"{10**power:{'.2g' if power >= -2 else '.1g'}}"


def _lanes(
    tracks: Sequence[Track], figure: str, drawn_at: Callable[[float], float] = lambda value: value
) -> list[Wanted]:
    """A lane a stage: its ablation and its refreshes are drawn over it."""
    lanes = dict[str, Wanted]()
    for track in tracks:
        found = points_of(track.steps, lambda step: step.figures.get(figure))
        points = tuple((at, drawn_at(value)) for at, value in found)
        style = track.role if track.name in ("", "refresh") else f"{track.role} ablation"
        series = Series(track.title, style, points)
        before = lanes.get(track.stage, (track.stage, None, track.wanted, ()))
        lanes[track.stage] = (*before[:3], (*before[3], series))
    return list(lanes.values())


def _part_lanes(tracks: Sequence[Track]) -> list[Wanted]:
    """A lane for everything that was trained, for each has several lines."""
    styles = styles_of_parts(tracks)
    return [
        (track.stage, track.name, track.wanted, [_part(track, *each) for each in styles.items()]) for track in tracks
    ]


def _part(track: Track, name: str, style: str) -> Series:
    points = points_of(track.steps, lambda step: step.reward_parts.get(name))
    return Series(f"{track.title}: {PART_TITLES.get(name, name)}", style, points)


def _strip(
    chart_id: str, title: str, meaning: str, wanted: Sequence[Wanted], write: Callable[[float], str] = short
) -> Strip | None:
    """Place the lanes beside each other on one vertical axis; None without a point."""
    ys = [y for *_, series in wanted for one in series for _, y in one.points]
    if not ys:
        return None
    width = max(STRIP_WIDTH, LEFT + LANE_LEAST * len(wanted))
    apart = (width - LEFT) / len(wanted)
    is_log = write is _unlog
    marks = ticks(min(ys), max(ys), 6 if is_log else 4, whole=is_log)
    up = scale(marks[0], marks[-1], STRIP_HEIGHT - BOTTOM, HEAD)
    lefts = [LEFT + apart * place for place in range(len(wanted))]
    return Strip(
        id=chart_id,
        title=title,
        meaning=meaning,
        description="; ".join(described(one, write) for *_, series in wanted for one in series if one.points),
        width=width,
        lanes=tuple(_lane(each, left, apart, up, write) for each, left in zip(wanted, lefts, strict=True)),
        x_ticks=tuple(Tick(left + apart / 2, _extent(each)) for each, left in zip(wanted, lefts, strict=True)),
        y_ticks=tuple(Tick(up(mark), f"{10**mark:g}" if is_log else tick_label(mark, marks, write)) for mark in marks),
    )


def _lane(
    wanted: Wanted, left: float, width: float, up: Callable[[float], float], write: Callable[[float], str]
) -> Lane:
    title, note, steps, series = wanted
    kept = [Series(one.name, one.style, thin(one.points)) for one in series if one.points]
    across = scale(0, max([steps, *(one.points[-1][0] for one in kept)]), left + 4, left + width - 4)
    lines = tuple(drawn(Series(described(one, write), one.style, one.points), across, up, 0, write) for one in kept)
    return Lane(title, _ends(kept, write) if note is None else note, round(left, 1), lines)


def _ends(series: Sequence[Series], write: Callable[[float], str]) -> str:
    """Where the first line begins and where it ends, as it is drawn."""
    if not series:
        return ""
    smoothed = smooth(series[0].points)
    return f"{write(smoothed[0][1])} \N{RIGHTWARDS ARROW} {write(smoothed[-1][1])}"


def _extent(wanted: Wanted) -> str:
    """How many steps there are of how many."""
    _, _, steps, series = wanted
    taken = max((one.points[-1][0] for one in series if one.points), default=0.0)
    if not taken:
        return "not begun"
    return f"{count(steps)} steps" if taken >= steps else f"{taken:.0f} of {count(steps)} steps"


def dot_charts(data: CurriculumData) -> list[Dots]:
    """The figures of CHARTED that were measured, a row a version."""
    found = [_dots(data, what, name) for what, name in CHARTED]
    return [chart for chart in found if chart.rows]


def _dots(data: CurriculumData, what: str, name: str) -> Dots:
    meaning, measured = CHARTED[what, name], _by_version(data, what, name)
    ends = [end for of in measured.values() for one in of.values() for end in (one.low, one.high) if end is not None]
    marks = ticks(min(ends, default=0), max(ends, default=1), 4)
    across = scale(marks[0], marks[-1], DOTS_LEFT, DOTS_WIDTH - 2 * VALUE_WIDTH - 16)
    words = (f"{version}, {kind}: {one}" for version, of in measured.items() for kind, one in of.items())
    return Dots(
        id=f"{what}-{name}",
        title=meaning.title,
        meaning=meaning.meaning + ("; lower is better" if meaning.lower_is_better else ""),
        description="; ".join(words),
        height=ROW * len(measured) + 34,
        rows=tuple(
            Row(version, version in ablated(data.spec), ROW * (place + 0.5), _marks(of, ROW * (place + 0.5), across))
            for place, (version, of) in enumerate(measured.items())
        ),
        x_ticks=tuple(Tick(across(mark), tick_label(mark, marks, short)) for mark in marks),
    )


def _by_version(data: CurriculumData, what: str, name: str) -> dict[str, dict[str, Figure]]:
    """A figure that has a value, by version and by the kind of problems."""
    found = dict[str, dict[str, Figure]]()
    for (version, of), figures in data.figures.items():
        if of.removesuffix("-hard") == what and name in figures and figures[name].value is not None:
            found.setdefault(version, {})["hard" if of.endswith("-hard") else "ordinary"] = figures[name]
    return found


def _marks(measured: Mapping[str, Figure], at: float, across: Callable[[float], float]) -> tuple[Mark, ...]:
    """Ordinary problems above hard ones; alone, on the line of the version's name."""
    apart = APART if len(measured) > 1 else 0.0
    return tuple(_mark(kind, one, at, apart, across) for kind, one in measured.items())


def _mark(kind: str, one: Figure, at: float, apart: float, across: Callable[[float], float]) -> Mark:
    value, low, high = (round(across(end or 0.0), 1) for end in (one.value, one.low, one.high))
    is_hard = kind == "hard"
    label_at = DOTS_WIDTH - (0 if is_hard else VALUE_WIDTH)
    return Mark(kind, value, low, high, at + (apart if is_hard else -apart), f"{one.value:.3f}", label_at)


def refinement_charts(data: CurriculumData) -> list[LineChart]:
    """What refining brings, round by round; a line a version."""
    found = [(version, figures) for (version, what), figures in data.figures.items() if what == "refinement"]
    kinds = dict.fromkeys(match[1] for _, figures in found for match in map(ROUND.fullmatch, figures) if match)
    return [_refined(kind, found) for kind in kinds]


def _refined(kind: str, found: Sequence[tuple[str, Mapping[str, Figure]]]) -> LineChart:
    series = [
        Series(version, f"part{(place + 1) % PART_STYLES}", _rounds(kind, figures))
        for place, (version, figures) in enumerate(found)
    ]
    title, meaning = "Pass@1", "share of right proofs"
    if kind != "pass_at_1":
        title, meaning = kind.replace("_", " ").capitalize(), "a problem's proof that rates itself highest is right"
    return line_chart(f"refined-{kind}", title, meaning, series, short, by="round")


def _rounds(kind: str, figures: Mapping[str, Figure]) -> tuple[tuple[float, float], ...]:
    matches = [(match, one.value) for name, one in figures.items() if (match := ROUND.fullmatch(name))]
    return tuple((float(match[2]), value) for match, value in matches if match[1] == kind and value is not None)


def tables(data: CurriculumData) -> list[Table]:
    """All that was measured."""
    titles = dict.fromkeys(what.removesuffix("-hard") for _, what in data.figures)
    return [_table(title, data) for title in titles]


def _table(title: str, data: CurriculumData) -> Table:
    rows = dict[str, dict[str, Figure]]()
    for (version, what), figures in data.figures.items():
        if what.removesuffix("-hard") == title:
            for name, one in figures.items():
                kind, column = ROUND.sub(r"\1", name), ROUND.sub(r"round \2", name)
                which = f", {kind.replace('_', ' ')}" if column != kind else ", hard" if what.endswith("-hard") else ""
                rows.setdefault(f"{version}{which}", {})[column] = one
    columns = tuple(dict.fromkeys(name for of in rows.values() for name in of))
    return Table(title, columns, tuple((name, tuple(map(of.get, columns))) for name, of in rows.items()))
