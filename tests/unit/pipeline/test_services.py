"""When a run on services takes its messages for lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import structlog

from proofloop.bus.dead_letters import Depth
from proofloop.pipeline import services
from proofloop.pipeline.services import LOST_S, QUIET_S, ServicesPipeline
from proofloop.runs.create import create_run
from proofloop.runs.progress import ProgressTracker
from proofloop.store import LocalStore
from tests.builders import runspec


class Clock:
    """Time that passes when a test says so."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class IdleBroker:
    """Its queues are empty. It first answers after an outage."""

    def __init__(self, clock: Clock, outage_s: float) -> None:
        self._clock = clock
        self._outage_s = outage_s

    def letters(self) -> tuple[()]:
        return ()

    def drop(self, chosen: object) -> int:
        return 0

    def depths(self) -> list[Depth]:
        self._clock.now_s += self._outage_s
        self._outage_s = 0.0
        return [Depth("generator", ready=0, later=0, dead=0, consumers=1)]

    def unserved(self, roles: object) -> tuple[()]:
        return ()


def test_an_outage_is_no_time_without_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store, spec = Clock(), LocalStore(tmp_path), runspec("r")
    monkeypatch.setattr(services, "time", clock)
    monkeypatch.setattr(services, "POLL_S", 0.0)
    create_run(store, spec, resume=False)
    broker: Any = IdleBroker(clock, outage_s=2 * LOST_S)
    pipeline = ServicesPipeline(store, broker, broker, spec, stopping=threading.Event())
    tracker = ProgressTracker(spec, store, 1, {})
    pipeline.begin(tracker)
    tracker.add_posed("p0-000")
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(services, "log", structlog.get_logger())
        for passed_s in (2 * QUIET_S, LOST_S, 2 * QUIET_S):
            assert logs == []
            clock.now_s += passed_s
            pipeline.wait()
    assert [each["event"] for each in logs] == ["messages_lost"]
