"""When a run on services takes its messages for lost, and what a resumed one publishes when."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import structlog

from proofloop.bus.dead_letters import Depth
from proofloop.errors import BusError
from proofloop.pipeline import earlier_messages, services
from proofloop.pipeline.earlier_messages import OTHERS_S, SETTLED_S
from proofloop.pipeline.services import LOST_S, QUIET_S, ServicesPipeline
from proofloop.runs.costs import Spent
from proofloop.runs.create import create_run
from proofloop.runs.planned import first_proofs, keep_problem
from proofloop.runs.progress import ProgressTracker
from proofloop.schema.events import Event
from proofloop.schema.records import Problem
from proofloop.store import LocalStore, Store
from proofloop.worker.calls.running_calls import RunningCalls
from proofloop.worker.calls.usage import UsageCounter, UsageWriter
from tests.builders import runspec


class Clock:
    """Time that passes when a test says so."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Broker:
    """Its queue has `ready` messages, which no worker takes. It first answers after an outage."""

    def __init__(self, clock: Clock, outage_s: float = 0.0) -> None:
        self._clock = clock
        self._outage_s = outage_s
        self.ready = 0
        self.errors: list[BusError] = []
        self.published: list[Event] = []

    def publish(self, events: Iterable[Event]) -> None:
        self.published += events

    def letters(self) -> tuple[()]:
        return ()

    def drop(self, chosen: object) -> int:
        return 0

    def depths(self) -> list[Depth]:
        if self.errors:
            raise self.errors.pop()
        self._clock.now_s += self._outage_s
        self._outage_s = 0.0
        return [Depth("generator", ready=self.ready, later=0, dead=0, consumers=1)]

    def unserved(self, roles: object) -> tuple[()]:
        return ()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(services, "time", clock)
    monkeypatch.setattr(earlier_messages, "time", clock)
    monkeypatch.setattr(services, "POLL_S", 0.0)
    return clock


def test_an_outage_is_no_time_without_work(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, spec = LocalStore(tmp_path), runspec("r")
    create_run(store, spec, resume=False)
    broker: Any = Broker(clock, outage_s=2 * LOST_S)
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


OLD, NEW = (tuple(first_proofs(runspec("r"), problem)) for problem in ("old", "new"))


def resumed(store: Store, broker: Any) -> ServicesPipeline:
    """A run whose first problem was posed by an earlier process."""
    spec = runspec("r")
    create_run(store, spec, resume=False)
    assert keep_problem(store, spec, Problem(id="old", question="?"))
    pipeline = ServicesPipeline(store, broker, broker, spec, stopping=threading.Event())
    pipeline.begin(ProgressTracker(spec, store, 1, {}))
    return pipeline


def pass_time(clock: Clock, pipeline: ServicesPipeline, seconds: float) -> None:
    end_s = clock.now_s + seconds
    while clock.now_s < end_s:
        clock.now_s += 0.5
        pipeline.wait()


def test_a_resumed_run_publishes_earlier_problems_when_nothing_is_in_work(
    clock: Clock, tmp_path: Path
) -> None:
    store, broker = LocalStore(tmp_path), Broker(clock)
    usage = UsageCounter(RunningCalls())
    writer = UsageWriter(store, usage)
    pipeline = resumed(store, broker)
    pipeline.publish(OLD, again=True)
    pipeline.publish(NEW)
    assert broker.published == [*NEW]
    broker.ready = 1
    pass_time(clock, pipeline, 2 * SETTLED_S)
    broker.ready = 0
    for _ in range(4):  # each call is over before it is counted as running
        pass_time(clock, pipeline, SETTLED_S / 2)
        usage.add("r", "verifier", Spent(1, 10, 20, 0.1))
        writer.write()
    assert broker.published == [*NEW]
    pass_time(clock, pipeline, SETTLED_S + 2)
    assert broker.published == [*NEW, *OLD]
    pipeline.publish(OLD, again=True)
    assert broker.published == [*NEW, *OLD, *OLD]


def test_a_resumed_run_does_not_wait_for_ever_for_the_messages_of_other_runs(
    clock: Clock, tmp_path: Path
) -> None:
    broker = Broker(clock)
    broker.ready = 5
    pipeline = resumed(LocalStore(tmp_path), broker)
    pipeline.publish(OLD, again=True)
    pass_time(clock, pipeline, OTHERS_S - 5)
    assert broker.published == []
    pass_time(clock, pipeline, 10)
    assert broker.published == [*OLD]


def test_after_an_outage_a_resumed_run_waits_anew(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_log: None
) -> None:
    monkeypatch.setattr(services, "AWAY_S", 0.0)
    broker = Broker(clock)
    pipeline = resumed(LocalStore(tmp_path), broker)
    pipeline.publish(OLD, again=True)

    broker.errors.append(BusError("the broker is away"))
    clock.now_s += 10 * SETTLED_S
    pipeline.wait()
    assert broker.published == []
    pass_time(clock, pipeline, SETTLED_S + 2)
    assert broker.published == [*OLD]


def test_a_new_run_publishes_all_at_once(clock: Clock, tmp_path: Path) -> None:
    store, spec, broker = LocalStore(tmp_path), runspec("r"), Broker(clock)
    create_run(store, spec, resume=False)
    source: Any = broker
    pipeline = ServicesPipeline(store, source, source, spec, stopping=threading.Event())
    pipeline.begin(ProgressTracker(spec, store, 1, {}))
    pipeline.publish(OLD, again=True)
    assert broker.published == [*OLD]
