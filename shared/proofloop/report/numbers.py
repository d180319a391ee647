"""Numbers, dates, versions and defects as the report and the review page write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

from proofloop.method.domains import Defect

NBSP = "\N{NO-BREAK SPACE}"
MINUTE_S, HOUR_S = 60, 3600


def share(value: float) -> str:
    """A share as `52 %`; with one decimal if it would otherwise be rounded to 0 or 100 %."""
    percent = 100 * value
    digits = 1 if 0 < percent < 1 or 99 < percent < 100 else 0
    return f"{percent:.{digits}f}{NBSP}%"


def count(value: float) -> str:
    """A number with separated thousands; from a million on as `1.23 million`. A small mean has one
    decimal.
    """
    if value >= 1e9:
        return f"{value / 1e9:,.2f}{NBSP}billion"
    if value >= 1e6:
        return f"{value / 1e6:,.2f}{NBSP}million"
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}"


def money(value: float) -> str:
    """An amount with two decimals; an amount below one with two significant digits."""
    if value >= 1 or value == 0:
        return f"{value:,.2f}"
    return f"{value:.{max(2, 1 - math.floor(math.log10(value)))}f}"


def duration(seconds: float) -> str:
    """A duration as `7 min 12 s`."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f}{NBSP}s" if seconds >= 10 else f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < HOUR_S:
        return f"{whole // MINUTE_S}{NBSP}min {whole % MINUTE_S}{NBSP}s"
    return f"{whole // HOUR_S:,}{NBSP}h {whole % HOUR_S // MINUTE_S}{NBSP}min"


def day(value: date) -> str:
    """A date as `7 November 2026`."""
    return f"{value.day}{NBSP}{value:%B}{NBSP}{value.year}"


def score(value: float | None) -> str:
    """A score as `0.5`, or `none`."""
    return "none" if value is None else f"{value:g}"


def version(name: str) -> str:
    """`runs/demo/models/verifier/000003` as `step 3`; any other name unchanged."""
    parts = name.split("/")
    return f"step {int(parts[-1])}" if parts[0] == "runs" and parts[-1].isdigit() else name


def defects(found: Sequence[Defect]) -> str:
    """The checker's defects as text. A defect of the whole proof names no step."""
    return ", ".join(map(_defect, found))


def _defect(defect: Defect) -> str:
    step = f"step {defect.step} " if defect.step else ""
    return f"{step}{defect.kind} ({defect.detail})" if defect.detail else f"{step}{defect.kind}"
