"""What a check found."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

DONE, OPEN, FAILED = "ok", "open", "FAILED"
"""`open`: a step that only the maintainer takes, just before the release."""


class Finding(NamedTuple):
    what: str
    state: str
    text: str


def compared(what: str, found: object, wanted: object) -> Finding:
    if found == wanted:
        return Finding(what, DONE, str(found))
    return Finding(what, FAILED, f"{found}, expected {wanted}")
