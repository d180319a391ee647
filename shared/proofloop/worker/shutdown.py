"""The end of a process: on request, or by itself with a reason."""

from __future__ import annotations

import threading


class Shutdown:
    """`stopping` is set when the process must end. When `cancelling` is set, running model calls
    are cancelled and their messages requeued; by default both are the same event. Safe to share
    between threads.
    """

    def __init__(
        self,
        stopping: threading.Event | None = None,
        cancelling: threading.Event | None = None,
    ) -> None:
        self.stopping = stopping or threading.Event()
        self.cancelling = cancelling or self.stopping
        self.reason = ""
        """Why the process ends by itself; empty if it was asked to end."""

    def stop(self, reason: str) -> None:
        """End the process because of `reason`; the first reason is kept."""
        self.reason = self.reason or reason
        self.stopping.set()

    @property
    def is_stopping(self) -> bool:
        return self.stopping.is_set()

    @property
    def must_cancel(self) -> bool:
        return self.cancelling.is_set()
