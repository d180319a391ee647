"""What to do when an engine cannot answer any call of a role: no such model, or no access.

No proof fails because of that. A process that serves many runs gives up the message; a process of a
single run stops.
"""

from __future__ import annotations

from typing import Protocol

from proofloop.errors import AccessRefused, EngineError, Reject
from proofloop.worker.shutdown import Shutdown


class UnusableEnginePolicy(Protocol):
    """Decides what becomes of the message whose call met an unusable engine."""

    def decide(self, problem: str, error: EngineError, *, has_taken_any: bool) -> None:
        """Raise Reject to give up the message. To have it retried elsewhere, stop and return.

        `has_taken_any`: an engine of this process has taken a call.
        """
        ...


class StopProcess:
    """For a process of a single run: what ends the run ends the process."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def decide(self, problem: str, error: EngineError, *, has_taken_any: bool) -> None:
        self._shutdown.stop(problem)


class RejectMessage:
    """For a service: give up the message, because other runs may be fine.

    A process without access whose engines never took a call is itself at fault: it stops, and
    another one may handle the message.
    """

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def decide(self, problem: str, error: EngineError, *, has_taken_any: bool) -> None:
        if isinstance(error, AccessRefused) and not has_taken_any:
            self._shutdown.stop(problem)
            return
        raise Reject(problem) from error
