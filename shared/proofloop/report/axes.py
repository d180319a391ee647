"""What every chart needs: round ticks, straight scales, averages, and names that do not lie on each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

Point = tuple[float, float]

MAX_POINTS = 120
SMOOTH_FROM = 12
"""From so many points on, a moving mean is drawn over the raw values."""


def thin(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most MAX_POINTS: neighbours are averaged."""
    width = math.ceil(len(points) / MAX_POINTS) or 1
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return tuple((fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts)


def smooth(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """A centred moving mean over about an eighth of the points; few points stay as they are."""
    if len(points) < SMOOTH_FROM:
        return points
    half = max(1, len(points) // 16)
    ys = [y for _, y in points]
    return tuple((x, fmean(ys[max(0, at - half) : at + half + 1])) for at, (x, _) in enumerate(points))


def ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> list[float]:
    """Round values that enclose the range, about `wanted` apart by 1, 2 or 5 times a power of ten; at least two."""
    if high - low < 1e-9:
        low, high = (low - 0.5, high + 0.5) if whole else (low - 0.05, high + 0.05)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The straight map of [low, high] to [start, end]; a single value goes to the middle."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def spread(wanted: Sequence[float], apart: float, top: float, bottom: float) -> list[float]:
    """The positions nearest to those wanted that are `apart` from each other, in the same order."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    above = top - apart
    for index in order:
        above = placed[index] = max(wanted[index], above + apart)
    below = bottom + apart
    for index in reversed(order):
        below = placed[index] = min(placed[index], below - apart)
    return placed
