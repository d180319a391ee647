"""Wait in a test until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], bool], limit_s: float = 10.0, pause_s: float = 0.02) -> bool:
    """Whether it became so within the limit."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
