"""What calls cost, counted where they are made and added up over processes."""

from __future__ import annotations

import threading
from pathlib import Path

from proofloop.engine.base import GenerationRequest
from proofloop.runs.costs import Spent
from proofloop.schema.records import Sampling
from proofloop.store import LocalStore
from proofloop.worker.calls.running_calls import RunningCalls
from proofloop.worker.calls.usage import (
    FRESH_S,
    KEPT,
    ServicesUsage,
    UsageCounter,
    UsageWriter,
    added_up,
    written,
    written_usage,
)
from tests.builders import RUN, CountingEngine, runspec
from tests.waiting import wait_until


def test_each_process_counts_its_own_and_the_run_adds_up(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in (1, 2):
        usage = UsageCounter(RunningCalls())
        writer = UsageWriter(store, usage)
        for _ in range(number + KEPT):
            usage.add(RUN, "verifier", Spent(1, 10, 5, 0.5))
            writer.write()
            writer.write()  # nothing changed: nothing is written
        usage.add("other", "verifier", Spent(1, 10, 5, 0.5))
        writer.write()
    spent, flying = added_up(written(store, RUN))
    assert (dict(spent), flying) == ({"verifier": Spent(7, 70, 35, 3.5)}, {})
    assert len(list(store.list(f"runs/{RUN}/usage/"))) == 2 * KEPT


def test_calls_in_flight_of_a_process_that_died_count_no_more(tmp_path: Path) -> None:
    store, calls, engine = LocalStore(tmp_path), RunningCalls(), CountingEngine(latency_s=60)
    usage = UsageCounter(calls)
    request = GenerationRequest("verifier:p", "m", (), Sampling(), 0)
    with calls.message(redelivered=False, attempt=1, stopping=threading.Event()):
        calls.join(f"{RUN}/verifier/p1-000/critique-0", lambda: engine.submit(request))
        assert usage.in_flight(RUN) == {"verifier": 1}
        UsageWriter(store, usage).write()
    engine.close()
    assert usage.in_flight(RUN) == {}
    (record,) = written(store, RUN)
    assert added_up([record], clock=lambda: record.at_s + 1)[1] == {"verifier": 1}
    assert added_up([record], clock=lambda: record.at_s + FRESH_S + 1)[1] == {}


def test_a_run_that_is_taken_up_counts_what_services_do_since(tmp_path: Path) -> None:
    store, usage = LocalStore(tmp_path), UsageCounter(RunningCalls())
    writer = UsageWriter(store, usage)
    usage.add(RUN, "generator", Spent(1, 1, 1, 1.0))
    writer.write()
    found = ServicesUsage(store, runspec())
    found.begin()
    usage.add(RUN, "generator", Spent(1, 10, 20, 2.0))
    writer.write()
    found.read()
    assert found.since_begin == {"generator": Spent(1, 10, 20, 2.0)}


def test_an_unexpected_error_ends_no_counting(tmp_path: Path, quiet_log: None) -> None:
    class Buggy(LocalStore):
        writes = 0

        def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
            self.writes += 1
            if self.writes == 1:
                raise KeyError("a bug of another package's store")
            return super().put_if_absent(key, data, durable=durable)

    store, usage = Buggy(tmp_path), UsageCounter(RunningCalls())
    usage.add(RUN, "verifier", Spent(1, 10, 5, 0.5))
    with written_usage(store, usage, every_s=0.02):
        assert wait_until(lambda: bool(list(written(store, RUN))), 60)
