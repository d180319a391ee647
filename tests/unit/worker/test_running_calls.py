"""No call is paid twice while it runs: messages that come again join it, other processes wait for
its lease.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from proofloop.bus import ACK, DELIVERY_LIMIT, Delivery, LocalBus, Outcome
from proofloop.engine.base import Call, Engine, FutureCall, Generation, GenerationRequest
from proofloop.errors import EngineError, StoreError
from proofloop.method.prompts import Prompt
from proofloop.schema import keys
from proofloop.schema.events import Event, ProblemPosed, ProofReviewed, ProofWritten, encode
from proofloop.schema.ids import critique_name
from proofloop.schema.records import Critique
from proofloop.store import LocalStore, find_record, get_record, put_record
from proofloop.worker.calls.call_leases import CallLease, CallLeaseTimes
from proofloop.worker.calls.model_call import ModelCall
from proofloop.worker.calls.model_request import ModelReply, ModelRequest
from proofloop.worker.calls.running_calls import RunningCalls, leased_calls
from proofloop.worker.calls.waiting import Cancelled
from proofloop.worker.roles import Role
from proofloop.worker.runtime import Worker
from proofloop.worker.tools import Tools
from proofloop_generator.prove import prove
from proofloop_meta_verifier.judge import judge
from proofloop_verifier.review import review
from tests.builders import (
    PROOF,
    RUN,
    CountingEngine,
    critique,
    evaluation,
    proof,
    runspec,
    valid,
    workplace,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quiet_log")

WRITTEN = ProofWritten(run_id=RUN, proof_id=PROOF, index=0, verifier_version="v-1")
REVIEWED = ProofReviewed(run_id=RUN, proof_id=PROOF, index=0)
CALL = f"{RUN}/verifier/{PROOF}/critique-0"
STORED = keys.proof(RUN, PROOF)
"""A key that the store has."""

ROLES = {
    "generator": Role("generator", {"ProblemPosed": prove}),
    "verifier": Role("verifier", {"ProofWritten": review}),
    "meta_verifier": Role("meta_verifier", {"ProofReviewed": judge}),
}
QUICK = CallLeaseTimes(
    begin_s=0.2,
    last_s=1.0,
    renew_s=0.1,
    watch_s=0.02,
    look_s=0.3,
    look_every_s=0.02,
    away_s=0.05,
    forget_s=0.5,
)
PATIENT = replace(QUICK, begin_s=60.0)
"""A lease only when the connection was lost."""


class HeldCall(FutureCall):
    """A call that the test answers."""

    def __init__(self, request: GenerationRequest) -> None:
        super().__init__()
        self.request = request
        self.is_cancelled = False

    def answer(self, text: str) -> None:
        self.future.set_result(Generation(text, "stop", 10, 20, 0.5, self.request.model))

    def fail(self, error: EngineError) -> None:
        self.future.set_exception(error)

    def cancel(self) -> None:
        self.is_cancelled = True


class HeldEngine:
    """Remembers its calls; the test answers them."""

    def __init__(self) -> None:
        self.calls: list[HeldCall] = []

    def submit(self, request: GenerationRequest) -> Call:
        self.calls.append(HeldCall(request))
        return self.calls[-1]

    def wait(self, count: int = 1) -> HeldCall:
        """The last of so many calls."""
        assert wait_until(lambda: len(self.calls) == count), len(self.calls)
        return self.calls[-1]

    def close(self) -> None: ...


class WatchedStore(LocalStore):
    """A store that counts its requests, and is away while `away` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = threading.Event()
        self.requests: list[str] = []
        self.before_request: Callable[[str], object] = lambda key: None

    def _path(self, key: str) -> str:
        if self.away.is_set():
            raise StoreError("the store is away")
        self.requests.append(key)
        self.before_request(key)
        return super()._path(key)


class Losses:
    """A bus's count of lost connections."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        return self.count


@dataclass
class Process:
    """One service's process as its messages see it."""

    tools: Tools
    store: WatchedStore
    losses: Losses
    pool: ThreadPoolExecutor
    published: list[Event]

    def deliver(
        self, event: Event, *, redelivered: bool = False, attempt: int = 1
    ) -> Future[Outcome]:
        role = {"ProblemPosed": "generator", "ProofWritten": "verifier"}.get(
            event.name, "meta_verifier"
        )
        worker = Worker(ROLES[role], LocalBus(on_publish=self.published.append), self.tools)
        return self.pool.submit(worker.process, Delivery(encode(event), attempt, None, redelivered))

    def leases(self) -> list[CallLease]:
        """Without those that their writer deleted since they were listed."""
        found = [
            find_record(self.store, key, CallLease) for key in list(self.store.list(keys.LEASES))
        ]
        return [lease for lease in found if lease]

    def has_lease(self) -> bool:
        return any(CALL in lease.calls and lease.until_s > time.time() for lease in self.leases())


@contextmanager
def process(root: Path, engine: Engine, times: CallLeaseTimes | None = QUICK) -> Iterator[Process]:
    """A process on the store in that folder, which holds the proof; without `times` it is the only
    one.
    """
    if not list(LocalStore(root).list("specs/")):
        put_record(workplace(root, engine, runspec()).store, keys.proof(RUN, PROOF), proof())
    store, losses = WatchedStore(root), Losses()
    with calls_of(store, losses, times) as calls, ThreadPoolExecutor(16) as pool:
        tools = Tools(store, lambda *_: engine, calls=calls)
        try:
            yield Process(tools, store, losses, pool, [])
        finally:
            tools.shutdown.stop("the test is over")
            store.away.clear()


@contextmanager
def calls_of(
    store: LocalStore, losses: Losses, times: CallLeaseTimes | None
) -> Iterator[RunningCalls]:
    if times is None:
        yield RunningCalls()
    else:
        with leased_calls(store, losses, times) as calls:
            yield calls


def joined(one: Process, messages: int) -> bool:
    """Whether so many messages wait for the call."""
    running = one.tools.calls._running
    return wait_until(lambda: CALL in running and running[CALL].users == messages)


def counted(one: Process, metric: str) -> float:
    return sum(
        sample.value
        for family in one.tools.metrics.registry.collect()
        for sample in family.samples
        if sample.name == metric
    )


# -- in one process
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again", [{"redelivered": True, "attempt": 2}, {}], ids=["redelivered", "posed again"]
)
def test_a_message_that_comes_again_joins_the_running_call(
    tmp_path: Path, again: dict[str, Any]
) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        first = one.deliver(WRITTEN)
        call = engine.wait()
        second = one.deliver(WRITTEN, **again)
        assert joined(one, 2)
        call.answer(evaluation("0.5"))
        assert (first.result(60), second.result(60)) == (ACK, ACK)
        assert one.published == [REVIEWED, REVIEWED]
        assert len(engine.calls) == 1
        assert get_record(one.store, keys.critique(RUN, PROOF, 0), Critique).verdict == valid(0.5)
        assert counted(one, "proofloop_engine_seconds_count") == 1
        assert counted(one, "proofloop_verdicts_total") == 1
        assert not one.tools.calls.begun()


def ask(one: Process, unneeded_once: str = "") -> Future[ModelReply]:
    """Make the verifier's call within a new message."""

    def asking() -> ModelReply:
        with one.tools.calls.message(
            redelivered=False, attempt=1, stopping=one.tools.shutdown.stopping
        ):
            request = ModelRequest(
                RUN,
                "verifier",
                "v-1",
                Prompt(text="Check it.", digest="0"),
                PROOF,
                critique_name(0),
            )
            return ModelCall(request, one.tools).reply(unneeded_once)

    return one.pool.submit(asking)


def test_all_get_the_same_answer_and_one_counts_it(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        asked = [ask(one) for _ in range(4)]
        assert joined(one, 4)
        engine.wait().answer("yes")
        answers = [each.result(60) for each in asked]
    assert all(each == answers[0] for each in answers)
    assert sorted(each.is_counted for each in answers) == [False, True, True, True]


def test_one_message_that_needs_the_answer_no_more_leaves_it_to_the_other(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        unneeded, needed = ask(one, STORED), ask(one)
        with pytest.raises(Cancelled):
            unneeded.result(60)
        call = engine.wait()
        assert not call.is_cancelled
        call.answer("yes")
        assert needed.result(60).text == "yes"
        assert not call.is_cancelled


def test_a_call_that_no_message_needs_is_cancelled_and_the_next_message_asks_anew(
    tmp_path: Path,
) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        both = [ask(one, STORED), ask(one, STORED)]
        for each in both:
            with pytest.raises(Cancelled):
                each.result(60)
        assert engine.wait().is_cancelled
        third = ask(one)
        engine.wait(2).answer("yes")
        assert third.result(60).text == "yes"


def test_a_process_that_stops_gives_all_messages_of_a_call_back(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        both = [one.deliver(WRITTEN), one.deliver(WRITTEN)]
        assert wait_until(lambda: bool(engine.calls)) and joined(one, 2)
        one.tools.shutdown.stop("asked to")
        assert [each.result(60) for each in both] == [
            Outcome("requeue", "the process is stopping", 0.0)
        ] * 2
        assert engine.wait().is_cancelled
        assert not list(one.store.list(keys.critiques(RUN, PROOF)))


def test_a_failure_is_every_messages_and_counted_once(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        both = [one.deliver(WRITTEN), one.deliver(WRITTEN)]
        assert wait_until(lambda: bool(engine.calls)) and joined(one, 2)
        engine.wait().fail(EngineError("no answer", retryable=True))
        assert [each.result(60) for each in both] == [
            Outcome("requeue", "engine: no answer", 2.0)
        ] * 2
        assert counted(one, "proofloop_engine_failures_total") == 1


@pytest.mark.parametrize("seed", range(3))
def test_each_question_is_asked_once_however_often_and_whenever_its_message_comes(
    tmp_path: Path, seed: int
) -> None:
    """Two processes lose their connections again and again; the messages go to either."""
    dice, deliveries = random.Random(seed), list[Future[Outcome]]()
    engine = CountingEngine(latency_s=0.15, latency_sigma=0.5, seed=seed)
    claim = critique(0, valid(0.0), "It claims a gap.\n" + evaluation("0"))
    posed = ProblemPosed(run_id=RUN, problem_id="p1", proof_id="p1-001", group="p1")
    events = [
        posed,
        REVIEWED,
        *(WRITTEN.model_copy(update={"index": index}) for index in range(1, 5)),
    ]
    with process(tmp_path, engine, PATIENT) as one, process(tmp_path, engine, PATIENT) as two:
        put_record(one.store, keys.critique(RUN, PROOF, 0), claim)
        deliveries += [dice.choice([one, two]).deliver(event) for event in events]
        for _ in range(5):
            time.sleep(dice.uniform(0, 0.1))
            one.losses.count += 1
            two.losses.count += 1
            again = [
                dice.choice([one, two]).deliver(event, redelivered=True, attempt=2)
                for event in events
            ]
            deliveries += again
        kinds = {each.result(60).kind for each in deliveries}
    assert kinds <= {"ack", "requeue"}
    assert sorted(engine.names()) == sorted(set(engine.names()))
    assert {name.split(":")[0] for name in engine.names()} == set(ROLES)
    engine.close()


# -- between processes
# -------------------------------------------------------------------------------------------------


def test_a_short_call_costs_no_store_request_more(tmp_path: Path) -> None:
    def requests(folder: Path, times: CallLeaseTimes | None) -> list[str]:
        with process(folder, CountingEngine(), times) as one:
            assert one.deliver(WRITTEN).result(60) == ACK
            time.sleep(0.2)  # several times `watch_s`
            return one.store.requests

    alone, shared = requests(tmp_path / "a", None), requests(tmp_path / "b", PATIENT)
    assert shared == alone


def test_a_process_alone_takes_no_lease_and_looks_for_none(tmp_path: Path) -> None:
    with process(tmp_path, CountingEngine(), times=None) as one:
        assert one.deliver(WRITTEN, redelivered=True, attempt=2).result(60) == ACK
        assert not [key for key in one.store.requests if key.startswith(keys.LEASES)]


def test_the_lease_of_a_long_call_is_renewed_until_its_answer_is_stored(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        began_s = time.monotonic()
        outcome = one.deliver(WRITTEN)
        assert wait_until(one.has_lease)
        assert time.monotonic() - began_s >= QUICK.begin_s
        first = max(lease.until_s for lease in one.leases())
        assert wait_until(
            lambda: max((lease.until_s for lease in one.leases()), default=0.0) > first + 0.5
        )
        assert len(one.leases()) <= 3
        engine.wait().answer(evaluation("1"))
        assert outcome.result(60) == ACK
        assert wait_until(lambda: not one.leases())


def test_a_lost_connection_puts_every_call_into_the_lease_at_once(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine, PATIENT) as one:
        one.deliver(WRITTEN)
        engine.wait()
        time.sleep(0.2)
        assert not one.leases()
        one.losses.count += 1
        assert wait_until(one.has_lease)
        one.deliver(WRITTEN.model_copy(update={"index": 1}))
        engine.wait(2)
        time.sleep(0.3)
        assert {call for lease in one.leases() for call in lease.calls} == {CALL}, (
            "its message was not lost"
        )


@pytest.mark.parametrize("losing", [False, True], ids=["a long call", "a lost connection"])
def test_another_process_waits_for_the_lease_and_uses_the_stored_answer(
    tmp_path: Path, losing: bool
) -> None:
    engine = HeldEngine()
    times = PATIENT if losing else QUICK
    with process(tmp_path, engine, times) as one, process(tmp_path, engine, times) as two:
        first = one.deliver(WRITTEN)
        engine.wait()
        one.losses.count += losing
        assert wait_until(one.has_lease)
        # The copies that a bus makes of it are not redelivered.
        for redelivered in (True, False, False):
            outcome = two.deliver(WRITTEN, redelivered=redelivered, attempt=2).result(60)
            assert outcome.kind == "requeue" and 0 < outcome.after_s <= times.last_s
            assert "waits for this answer" in outcome.reason
        engine.wait().answer(evaluation("0.5"))
        assert first.result(60) == ACK
        assert two.deliver(WRITTEN, attempt=2).result(60) == ACK
        assert (one.published, two.published) == ([REVIEWED], [REVIEWED])
        assert len(engine.calls) == 1


def test_a_redelivered_message_looks_for_so_long_that_the_loser_can_take_its_lease(
    tmp_path: Path,
) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine, PATIENT) as one, process(tmp_path, engine, PATIENT) as two:
        one.deliver(WRITTEN)
        engine.wait()
        again = two.deliver(WRITTEN, redelivered=True, attempt=2)
        time.sleep(PATIENT.look_s / 2)
        one.losses.count += 1
        assert again.result(60).kind == "requeue"
        assert len(engine.calls) == 1


def test_an_answer_that_is_stored_while_a_redelivered_message_looks_is_used(tmp_path: Path) -> None:
    engine, others = CountingEngine(), LocalStore(tmp_path)

    def answer(key: str) -> None:
        if key == "leases":
            put_record(others, keys.critique(RUN, PROOF, 0), critique(0, valid(0.0)))

    with process(tmp_path, engine) as one:
        one.store.before_request = answer
        assert one.deliver(WRITTEN, redelivered=True, attempt=2).result(60) == ACK
        assert engine.names() == []


def test_the_lease_of_a_killed_process_runs_out_and_another_asks(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as killed, process(tmp_path, engine) as other:
        killed.deliver(WRITTEN)
        engine.wait()
        assert wait_until(other.has_lease)
        killed.store.away.set()  # as the others see it, it writes nothing more
        outcome = other.deliver(WRITTEN, redelivered=True, attempt=2).result(60)
        assert outcome.kind == "requeue"
        time.sleep(outcome.after_s)
        again = other.deliver(WRITTEN, attempt=2)
        engine.wait(2).answer(evaluation("0"))
        assert again.result(60) == ACK


def test_the_lease_of_a_process_that_ended_is_gone(tmp_path: Path) -> None:
    engine = HeldEngine()
    with process(tmp_path, engine) as one:
        one.deliver(WRITTEN)
        assert wait_until(one.has_lease)
    assert list(LocalStore(tmp_path).list(keys.LEASES)) == []


def test_what_killed_processes_left_is_deleted_some_time_after(tmp_path: Path) -> None:
    with process(tmp_path, CountingEngine()) as one:
        for holder, ended_s in (("long-ago", 60.0), ("just-now", 0.0)):
            lease = CallLease(holder=holder, until_s=time.time() - ended_s, calls=(CALL,))
            put_record(one.store, keys.renewed(keys.LEASES, holder, 7, "lease"), lease)
        assert one.deliver(WRITTEN, redelivered=True, attempt=2).result(60) == ACK
        assert [lease.holder for lease in one.leases()] == ["just-now"]


def test_a_call_goes_on_while_the_store_is_away_and_its_lease_is_renewed_afterwards(
    tmp_path: Path,
) -> None:
    engine = HeldEngine()
    with structlog.testing.capture_logs() as logs, process(tmp_path, engine) as one:
        outcome = one.deliver(WRITTEN)
        assert wait_until(one.has_lease)
        one.store.away.set()
        time.sleep(QUICK.last_s + 0.2)
        one.store.away.clear()
        assert wait_until(one.has_lease)
        engine.wait().answer(evaluation("1"))
        assert outcome.result(60) == ACK
    assert [line["event"] for line in logs].count("lease_not_renewed") == 1


def test_a_message_stops_looking_at_once_when_the_process_stops(tmp_path: Path) -> None:
    with process(tmp_path, CountingEngine(), replace(QUICK, look_s=60.0)) as one:
        again = one.deliver(WRITTEN, redelivered=True, attempt=2)
        time.sleep(0.2)
        one.tools.shutdown.stop("asked to")
        assert again.result(1) == Outcome("requeue", "the process is stopping", 0.0)


def test_many_redelivered_messages_read_the_leases_together(tmp_path: Path) -> None:
    with process(tmp_path, CountingEngine(), replace(QUICK, look_every_s=600.0)) as one:
        events = [WRITTEN.model_copy(update={"index": index}) for index in range(16)]
        again = [one.deliver(event, redelivered=True, attempt=2) for event in events]
        assert [each.result(60) for each in again] == [ACK] * 16
        assert one.store.requests.count("leases") == 1


def test_a_message_whose_worker_died_each_time_is_dead_although_it_was_put_off(
    tmp_path: Path,
) -> None:
    engine = CountingEngine()
    with process(tmp_path, engine) as one:
        last = one.deliver(WRITTEN, attempt=DELIVERY_LIMIT + 1)
        assert last.result(60) == ACK
        dead = one.deliver(WRITTEN, redelivered=True, attempt=DELIVERY_LIMIT + 2).result(60)
    assert (dead.kind, dead.reason) == (
        "dead",
        "delivered 5 times; each time its worker died, or lost it",
    )
    assert engine.names() == [f"verifier:{PROOF}:critique-0"]
