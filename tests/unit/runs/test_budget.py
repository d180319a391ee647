"""[budget]: what is let through while there is room, and what a run says when it is used up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.runs.budget import MARK_S, BudgetGate, BudgetMark, MarkGate, Meter, RunClock
from proofloop.runs.costs import Spent
from proofloop.schema import keys
from proofloop.schema.events import (
    Event,
    ModelPublished,
    ProblemPosed,
    ProofReviewed,
    ProofWritten,
    ReviewJudged,
)
from proofloop.schema.records import ModelRole
from proofloop.store import LocalStore, put_record
from tests.builders import RUN, runspec

POSED = ProblemPosed(run_id=RUN, problem_id="p1", proof_id="p1-000", group="p1")
WRITTEN = ProofWritten(run_id=RUN, proof_id="p1-000", index=0, verifier_version="m-1")
JUDGED = ReviewJudged(run_id=RUN, proof_id="p1-000", index=0)
PUBLISHED = ModelPublished(run_id=RUN, role="verifier", version="m-2", digest="0" * 64)


def limited(**budget: Any) -> RunSpec:
    sampling = {role: {"max_tokens": 100} for role in ("generator", "verifier", "meta_verifier")}
    return runspec(budget=budget, prices={"per_million_completion_tokens": 1e6}, sampling=sampling)


class Counted:
    """A run whose calls cost what the test says."""

    def __init__(self, spec: RunSpec) -> None:
        self.spent: dict[ModelRole, Spent] = {}
        self.seconds = 0.0
        self.meter = Meter(spec, lambda: self.spent, lambda: self.seconds)
        self.stopping = threading.Event()
        self.gate = BudgetGate(self.meter, self.stopping)

    def entered(self, event: Event, role: str) -> bool:
        with self.gate.message(event, role) as is_wanted:
            return is_wanted


@contextmanager
def inside(gate: BudgetGate, event: Event, role: str) -> Iterator[None]:
    with gate.message(event, role) as is_wanted:
        assert is_wanted
        yield


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ({"tokens": 1001}, ""),
        ({"tokens": 1000}, "tokens = 1000"),
        ({"money": 901}, ""),
        ({"money": 900.0}, "money = 900"),
        ({"hours": 2.5}, ""),
        ({"hours": 2.0}, "hours = 2"),
        ({}, ""),
    ],
)
def test_a_budget_is_used_up_when_a_limit_is_reached(budget: dict[str, float], limit: str) -> None:
    run = Counted(limited(**budget))
    run.spent = {"generator": Spent(1, 60, 300, 1), "verifier": Spent(2, 40, 600, 2)}
    run.seconds = 7200
    assert run.meter.over() == limit


def test_what_is_used_and_what_is_missing_is_said(tmp_path: Path) -> None:
    run = Counted(limited(money=900))
    run.spent, run.seconds = {"generator": Spent(1, 100, 900, 1)}, 1800
    end = run.meter.used_up(3, 8, running=2)
    assert end.problem == (
        "r1: [budget] money = 900 is used up, after 1,000 tokens, 900.00 of money, 0.50 hours: 3 of"
        " 8 proofs have a"
        " label, 5 are missing; 2 calls that run end in the services, and are kept"
    )
    assert "--resume" in end.hint


def test_used_up_only_what_asks_a_model_is_dropped() -> None:
    run = Counted(limited(tokens=10))
    run.spent = {"generator": Spent(1, 5, 5, 1)}
    entered = [
        run.entered(e, r)
        for e, r in ((POSED, "generator"), (WRITTEN, "verifier"), (PUBLISHED, "verifier"))
    ]
    assert entered == [False, False, True]
    assert run.entered(JUDGED, "labeler")


def test_a_call_that_may_not_fit_waits_for_those_that_run() -> None:
    run = Counted(limited(tokens=250))  # two answers of max_tokens, not three
    with ThreadPoolExecutor(1) as pool, inside(run.gate, POSED, "generator"):
        with inside(run.gate, POSED, "generator"):
            third = pool.submit(run.entered, POSED, "generator")
            time.sleep(0.3)
            assert not third.done()
            run.spent = {"generator": Spent(1, 0, 10, 1)}  # answers are shorter than thought
        assert third.result(5)


def test_of_those_that_wait_a_later_role_goes_first() -> None:
    run, order = Counted(limited(tokens=100)), list[str]()  # one call at a time

    def enter(event: Event, role: str) -> None:
        with run.gate.message(event, role) as is_wanted:
            assert is_wanted
            order.append(role)

    with ThreadPoolExecutor(3) as pool, inside(run.gate, POSED, "generator"):
        reviewed = ProofReviewed(run_id=RUN, proof_id="p1-000", index=0)
        for event, role in (
            (POSED, "generator"),
            (WRITTEN, "verifier"),
            (reviewed, "meta_verifier"),
        ):
            pool.submit(enter, event, role)
            time.sleep(0.1)
    assert order == ["meta_verifier", "verifier", "generator"]


def test_a_run_that_is_stopped_waits_for_no_room() -> None:
    run = Counted(limited(tokens=100))
    with ThreadPoolExecutor(1) as pool, inside(run.gate, POSED, "generator"):
        waiting = pool.submit(run.entered, POSED, "generator")
        run.stopping.set()
        assert waiting.result(5) is False


def test_a_service_drops_the_messages_of_a_run_with_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    clock = [100.0]
    specs = {RUN: limited(tokens=1), "free": runspec("free")}
    monkeypatch.setattr("proofloop.runs.budget.time.monotonic", lambda: clock[0])
    gate = MarkGate(store, specs.__getitem__)

    def entered(event: Event, role: str = "generator") -> bool:
        with gate.message(event, role) as is_wanted:
            return is_wanted

    assert entered(POSED)
    for run in specs:
        put_record(store, keys.budget_mark(run), BudgetMark(reason="tokens = 1"))
    clock[0] += MARK_S + 0.1
    assert not entered(POSED)
    assert entered(JUDGED, "labeler") and entered(PUBLISHED)
    assert entered(POSED.model_copy(update={"run_id": "free"}))  # it has no budget any more
    store.delete_prefix(keys.budget_marks(RUN))
    clock[0] += MARK_S + 0.1
    assert entered(POSED)


def test_the_hours_of_all_processes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = LocalStore(tmp_path), [0.0]
    monkeypatch.setattr("proofloop.runs.budget.time.monotonic", lambda: clock[0])
    first = RunClock(store, RUN)
    for _ in range(5):
        clock[0] += 30
        first.keep()
    assert RunClock(store, RUN).seconds == 120  # what a killed process wrote last
    first.keep(now=True)
    second = RunClock(store, RUN)
    clock[0] += 10
    assert second.seconds == 160
    assert len(list(store.list(keys.times(RUN)))) == 1


def test_money_needs_prices() -> None:
    with pytest.raises(
        ConfigError, match=r"\[budget\] money = 5 without \[prices\].*\nhint: set \[prices\]"
    ):
        runspec(budget={"money": 5.0})
