"""One thread at a time handles messages, while the others wait for their models.

Each file access lets another thread run. With hundreds of threads at work on messages, most of
their processor time goes into such changes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_S = 10.0
"""The longest wait for a turn. Then a thread works without one, so no handler can cause a
deadlock.
"""


class FreeTurn:
    """All threads work at the same time: their handlers wait for servers most of the time."""

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Handle a message in this block."""
        yield

    @contextmanager
    def left(self) -> Iterator[None]:
        """Wait for a model in this block."""
        yield


class Turn(FreeTurn):
    """One thread works at a time. A turn saves time and protects nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def left(self) -> Iterator[None]:
        self._leave()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        if self._lock.acquire(timeout=LONGEST_S):
            self._holder = threading.get_ident()

    def _leave(self) -> None:
        if self._holder == threading.get_ident():
            self._holder = 0
            self._lock.release()
