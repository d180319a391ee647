"""The policy for an engine that can answer no call of a role: no such model, or no access.

No proof fails because of it. A process that serves many runs gives up the message; a process of a
single run stops.
"""

from __future__ import annotations

from typing import Protocol

from proofloop.errors import AccessRefused, EngineError, Reject
from proofloop.worker.shutdown import Shutdown


class UnusableEnginePolicy(Protocol):
    """Decides about the message whose call met an unusable engine."""

    def decide(self, problem: str, error: EngineError, *, has_taken_any: bool) -> None:
        """Raise Reject to give up the message. To have it retried elsewhere, stop the process and
        return. `has_taken_any`: an engine of this process has taken a call.
        """
        ...


class StopProcess:
    """The policy for a process of a single run: stop."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def decide(self, problem: str, error: EngineError, *, has_taken_any: bool) -> None:
        self._shutdown.stop(problem)


class RejectMessage:
    """The policy for a service: give up the message, because other runs may be fine. A process
    without access whose engines never took a call is itself at fault: it stops, and another process
    may handle the message.
    """

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def decide(self, problem: str, error: EngineError, *, has_taken_any: bool) -> None:
        if isinstance(error, AccessRefused) and not has_taken_any:
            self._shutdown.stop(problem)
            return
        raise Reject(problem) from error
