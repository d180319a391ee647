"""Helpers for all charts: round ticks, linear scales, averages, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

Point = tuple[float, float]

MAX_POINTS = 120
"""The most points drawn for one line."""

SMOOTH_FROM = 12
"""The fewest points for which a moving mean is drawn over the raw values."""


def thin(points: Sequence[Point]) -> tuple[Point, ...]:
    """Reduce a line to at most MAX_POINTS by averaging neighbours."""
    width = math.ceil(len(points) / MAX_POINTS) or 1
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return tuple((fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts)


def smooth(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """A centered moving mean over about an eighth of the points. Fewer than SMOOTH_FROM points are
    unchanged.
    """
    if len(points) < SMOOTH_FROM:
        return points
    half = max(1, len(points) // 16)
    ys = [y for _, y in points]
    means = (fmean(ys[max(0, place - half) : place + half + 1]) for place in range(len(ys)))
    return tuple((x, mean) for (x, _), mean in zip(points, means, strict=True))


def ticks(low: float, high: float, number: int, *, whole: bool = False) -> list[float]:
    """About `number` round values that enclose the range, at least two.

    Their distance is 1, 2 or 5 times a power of ten; with `whole`, at least 1.
    """
    if high - low < 1e-9:
        margin = 0.5 if whole else 0.05
        low -= margin
        high += margin
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map of [low, high] to [start, end]. If low equals high, all values go to the
    middle.
    """
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def spread(positions: Sequence[float], apart: float, top: float, bottom: float) -> list[float]:
    """Move positions until they are at least `apart`, in the same order and as little as
    possible.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = [0.0] * len(positions)
    above = top - apart
    for index in order:
        placed[index] = max(positions[index], above + apart)
        above = placed[index]
    below = bottom + apart
    for index in reversed(order):
        placed[index] = min(placed[index], below - apart)
        below = placed[index]
    return placed
