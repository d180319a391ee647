"""The state of a process's engines: the versions that take calls, the calls that fail, the versions
that no engine loads.
"""

from __future__ import annotations

import time

from proofloop.schema.records import ModelRole
from proofloop.worker.calls.failing_calls import FailingCalls

UNLOADED_S = 60.0
"""Warn when a published version has not been loaded for this long, and again after as long."""


class EngineHealth:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self.failing = FailingCalls()
        self._taken: set[tuple[str, ModelRole, str]] = set()
        self._unloaded_since_s: dict[tuple[str, ModelRole], float] = {}

    def add_taken(self, run_id: str, role: ModelRole, version: str) -> None:
        """Note that the engine took a call of this version: it does not refuse every call."""
        self._taken.add((run_id, role, version))

    def has_taken(self, run_id: str, role: ModelRole, version: str) -> bool:
        return (run_id, role, version) in self._taken

    @property
    def has_taken_any(self) -> bool:
        """Whether any engine of this process took any call."""
        return bool(self._taken)

    def forget(self, run_id: str) -> None:
        """Forget the run's versions, because its engine has changed."""
        self._taken.difference_update([each for each in tuple(self._taken) if each[0] == run_id])

    def add_loaded(self, run_id: str, role: ModelRole) -> None:
        self._unloaded_since_s.pop((run_id, role), None)

    def is_long_unloaded(self, run_id: str, role: ModelRole) -> bool:
        """Note that no engine loaded the role's published version; true when a warning is due."""
        name = (run_id, role)
        now = time.monotonic()
        if now - self._unloaded_since_s.setdefault(name, now) < UNLOADED_S:
            return False
        self._unloaded_since_s[name] = now
        return True
