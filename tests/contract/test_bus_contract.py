"""What every bus promises, run on each: nothing is lost, what fails comes again, what cannot work
is put aside.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from proofloop.bus import ACK, Bus, BusState, DeadLetter, Delivery, LocalBus, Outcome
from proofloop.bus.dead_letters import DeadLetters
from proofloop.schema.events import (
    Event,
    ModelPublished,
    ProofReviewed,
    ReviewJudged,
    decode,
    encode,
)
from tests.integration.embedded_worker import EmbeddedBus
from tests.integration.servers import Broker, cut_connections, delete_namespace
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quiet_log")

LIMIT = 4


@dataclass
class Subject:
    """A bus under test, the letters that died on it, and how to wait until it has nothing to do."""

    bus: Bus
    wait_idle: Callable[[float], bool]
    dead: list[DeadLetter] = field(default_factory=list)
    many: int = 10_000
    """So many messages take some seconds."""


@contextmanager
def local() -> Iterator[Subject]:
    dead: list[DeadLetter] = []
    bus = LocalBus(on_dead=dead.append)
    yield Subject(bus, bus.wait_idle, dead)
    bus.close(grace_s=10)


class DeadOnBroker(list[DeadLetter]):
    """Reads the broker's dead letters at each access."""

    def __init__(self, letters: DeadLetters) -> None:
        self.letters = letters

    def __iter__(self) -> Iterator[DeadLetter]:
        return self.letters.letters()

    def __len__(self) -> int:
        return len(list(self.letters.letters()))

    def __eq__(self, other: object) -> bool:
        return list(self.letters.letters()) == other


@contextmanager
def rabbitmq(broker: Broker) -> Iterator[Subject]:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    bus, letters = (
        EmbeddedBus(broker.url, namespace=namespace),
        DeadLetters(broker.url, namespace=namespace),
    )

    def wait_idle(timeout_s: float) -> bool:
        """Nothing ready, nothing later, nothing here, several times in a row: what travels is in
        none of them.
        """
        deadline, quiet = time.monotonic() + timeout_s, 0
        while quiet < 3 and time.monotonic() < deadline:
            is_idle = not bus.unsettled and not any(
                depth.ready + depth.later for depth in letters.depths()
            )
            quiet = quiet + 1 if is_idle else 0
            time.sleep(0.02)
        return quiet == 3

    try:
        yield Subject(bus, wait_idle, DeadOnBroker(letters), many=2_000)
    finally:
        bus.close(grace_s=10)
        delete_namespace(broker.url, namespace)


SUBJECTS = {"local": local, "rabbitmq": rabbitmq}


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    arguments = [request.getfixturevalue("broker")] if request.param == "rabbitmq" else []
    with SUBJECTS[request.param](*arguments) as one:
        yield one


def judged(number: int) -> ReviewJudged:
    return ReviewJudged(run_id="r1", proof_id=f"p{number}", index=0)


class Consumer:
    """Remembers what came and answers by the plan: the outcomes of each event's first deliveries,
    then ack.
    """

    def __init__(self, plan: Callable[[Event], list[Outcome]] = lambda event: []) -> None:
        self.seen: list[tuple[str, int]] = []
        self.at: list[float] = []
        self._plan = plan
        self._lock = threading.Lock()
        self._deliveries: Counter[str] = Counter()

    def __call__(self, delivery: Delivery) -> Outcome:
        event = decode(delivery.body)
        with self._lock:
            self.seen.append((event.id, delivery.attempt))
            self.at.append(time.monotonic())
            number = self._deliveries[event.id]
            self._deliveries[event.id] += 1
        planned = self._plan(event)
        return planned[number] if number < len(planned) else ACK


class TestBusContract:
    def test_every_published_event_is_delivered(self, subject: Subject) -> None:
        consumer = Consumer()
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=3)
        subject.bus.publish(judged(number) for number in range(100))
        assert subject.wait_idle(10)
        assert sorted(consumer.seen) == sorted((judged(number).id, 1) for number in range(100))

    def test_events_go_to_the_queues_that_want_their_routing_key(self, subject: Subject) -> None:
        consumers = {name: Consumer() for name in ("generator", "verifier", "audit", "nobody")}
        published = [
            ModelPublished(run_id="r1", role=role, version=role, digest="d")
            for role in ("generator", "verifier")
        ]
        reviewed = ProofReviewed(run_id="r1", proof_id="p", index=1)
        subject.bus.serve(
            "generator", ["ModelPublished.generator"], consumers["generator"], concurrency=1
        )
        subject.bus.serve(
            "verifier",
            ["ModelPublished.verifier", "ProofReviewed"],
            consumers["verifier"],
            concurrency=1,
        )
        subject.bus.serve("audit", ["ProofReviewed"], consumers["audit"], concurrency=1)
        subject.bus.serve("nobody", ["ModelPublished"], consumers["nobody"], concurrency=1)
        subject.bus.publish([*published, reviewed, judged(0)])
        assert subject.wait_idle(10)
        assert {
            name: [one for one, _ in consumer.seen] for name, consumer in consumers.items()
        } == {
            "generator": [published[0].id],
            "verifier": [published[1].id, reviewed.id],
            "audit": [reviewed.id],
            "nobody": [],
        }

    def test_a_failed_delivery_comes_again_with_its_attempt_counted(self, subject: Subject) -> None:
        consumer = Consumer(lambda event: [Outcome("failed", "oops")] * (LIMIT - 1))
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=2)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(10)
        assert consumer.seen == [(judged(0).id, attempt) for attempt in range(1, LIMIT + 1)]
        assert subject.dead == []

    def test_what_failed_as_often_as_the_limit_is_dead_with_its_last_reason(
        self, subject: Subject
    ) -> None:
        consumer = Consumer(
            lambda event: [Outcome("failed", f"oops {number}") for number in range(1, 99)]
        )
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=2)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(10)
        assert len(consumer.seen) == LIMIT
        assert subject.dead == [DeadLetter("labeler", f"oops {LIMIT}", encode(judged(0)), LIMIT)]

    def test_what_is_refused_is_dead_at_once(self, subject: Subject) -> None:
        consumer = Consumer(lambda event: [Outcome("dead", "never")] if event == judged(1) else [])
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
        subject.bus.publish([judged(0), judged(1), judged(2)])
        assert subject.wait_idle(10)
        assert [one for one, _ in consumer.seen] == [judged(number).id for number in range(3)]
        assert subject.dead == [DeadLetter("labeler", "never", encode(judged(1)), 1)]

    def test_a_requeued_delivery_comes_after_its_delay_and_counts_as_no_failure(
        self, subject: Subject
    ) -> None:
        wish = Outcome("requeue", "away", after_s=0.05)
        consumer = Consumer(lambda event: [wish] * (2 * LIMIT))
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(10)
        assert consumer.seen == [(judged(0).id, 1)] * (2 * LIMIT + 1)
        assert (
            min(
                later - earlier
                for earlier, later in zip(consumer.at, consumer.at[1:], strict=False)
            )
            >= 0.05
        )
        assert subject.dead == []

    def test_a_bus_that_delivers_says_so(self, subject: Subject) -> None:
        consumer = Consumer()
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=2)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(20)
        assert subject.bus.state() == BusState()

    def test_a_requeued_delivery_does_not_delay_others(self, subject: Subject) -> None:
        consumer = Consumer(
            lambda event: [Outcome("requeue", "away", after_s=2.0)] if event == judged(0) else []
        )
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
        subject.bus.publish(judged(number) for number in range(5))
        assert subject.wait_idle(20)
        assert consumer.seen == [(judged(number).id, 1) for number in (*range(5), 0)]
        assert consumer.at[4] - consumer.at[0] < 2.0

    def test_many_delayed_deliveries_wake_every_idle_thread(self, subject: Subject) -> None:
        gate, lock, seen = threading.Barrier(8), threading.Lock(), Counter[bytes]()

        def consume(delivery: Delivery) -> Outcome:
            with lock:
                seen[delivery.body] += 1
                first = seen[delivery.body] == 1
            if first:
                return Outcome("requeue", after_s=0.1)
            gate.wait(10)  # passes only when all eight are being handled at once
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=8)
        subject.bus.publish(judged(number) for number in range(8))
        assert subject.wait_idle(20)
        assert not gate.broken

    def test_deliveries_run_at_once_up_to_the_concurrency(self, subject: Subject) -> None:
        running, most, lock, four = 0, 0, threading.Lock(), threading.Barrier(4)

        def consume(delivery: Delivery) -> Outcome:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            four.wait(10)
            time.sleep(0.02)  # a fifth would be seen
            with lock:
                running -= 1
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=4)
        subject.bus.publish(judged(number) for number in range(20))
        assert subject.wait_idle(10)
        assert most == 4 and not four.broken

    def test_a_consumer_that_raises_fails_its_delivery_and_goes_on(self, subject: Subject) -> None:
        seen: list[bytes] = []

        def consume(delivery: Delivery) -> Outcome:
            seen.append(delivery.body)
            if delivery.body == encode(judged(0)):
                raise RuntimeError("a bug")
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=1)
        subject.bus.publish([judged(0), judged(1)])
        assert subject.wait_idle(10)
        assert sorted(seen) == sorted([encode(judged(0))] * LIMIT + [encode(judged(1))])
        assert subject.dead == [
            DeadLetter("labeler", "RuntimeError: a bug", encode(judged(0)), LIMIT)
        ]

    def test_closing_waits_for_what_runs_and_begins_nothing_new(self, subject: Subject) -> None:
        begun, finished, may_end = threading.Event(), [], threading.Event()

        def consume(delivery: Delivery) -> Outcome:
            begun.set()
            may_end.wait(10)
            finished.append(delivery.body)
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=1)
        subject.bus.publish([judged(0), judged(1)])
        assert begun.wait(10)
        threading.Timer(0.1, may_end.set).start()
        subject.bus.close(grace_s=10)
        assert finished == [encode(judged(0))]
        time.sleep(0.05)
        assert len(finished) == 1

    def test_closing_waits_no_longer_than_its_grace(self, subject: Subject) -> None:
        begun, may_end = threading.Event(), threading.Event()

        def consume(delivery: Delivery) -> Outcome:
            begun.set()
            may_end.wait(10)
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=2)
        subject.bus.publish([judged(0)])
        assert begun.wait(10)
        began = time.monotonic()
        subject.bus.close(grace_s=0.1)
        assert 0.1 <= time.monotonic() - began < 8
        may_end.set()

    def test_the_bus_is_idle_only_when_what_follows_from_its_events_is_done(
        self, subject: Subject
    ) -> None:
        """Each event of the first queue makes one of the second, slowly."""
        done: list[str] = []

        def first(delivery: Delivery) -> Outcome:
            time.sleep(0.01)
            event = decode(delivery.body)
            assert isinstance(event, ProofReviewed)
            subject.bus.publish([ReviewJudged(**event.model_dump())])
            return ACK

        def second(delivery: Delivery) -> Outcome:
            time.sleep(0.01)
            done.append(decode(delivery.body).id)
            return ACK

        subject.bus.serve("meta_verifier", ["ProofReviewed"], first, concurrency=2)
        subject.bus.serve("labeler", ["ReviewJudged"], second, concurrency=2)
        for turn in range(10):
            subject.bus.publish(
                ProofReviewed(run_id="r1", proof_id=f"p{turn}", index=index) for index in range(3)
            )
            assert subject.wait_idle(10)
            assert len(done) == 3 * (turn + 1)

    def test_who_waits_for_an_idle_bus_finds_the_dead_letters(self, subject: Subject) -> None:
        subject.bus.serve(
            "labeler", ["ReviewJudged"], lambda delivery: Outcome("dead", "never"), concurrency=4
        )
        for turn in range(subject.many // 200):
            subject.bus.publish([judged(turn)])
            assert subject.wait_idle(10)
            assert len(subject.dead) == turn + 1

    def test_none_of_many_messages_is_lost_among_random_failures(self, subject: Subject) -> None:
        dice, lock, count = random.Random(7), threading.Lock(), subject.many
        acknowledged: Counter[bytes] = Counter()

        def consume(delivery: Delivery) -> Outcome:
            with lock:
                throw = dice.random()
                if throw >= 0.5:
                    acknowledged[delivery.body] += 1
            if throw < 0.2:
                return Outcome("failed", "bad luck")
            if throw < 0.4:
                return Outcome("requeue", after_s=throw / 100)
            if throw < 0.45:
                return Outcome("dead", "never")
            if throw < 0.5:
                raise RuntimeError("worse luck")
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=8)
        publishers = [
            threading.Thread(
                target=subject.bus.publish,
                args=([judged(number) for number in range(part, count, 4)],),
            )
            for part in range(4)
        ]
        for publisher in publishers:
            publisher.start()
        for publisher in publishers:
            publisher.join()
        assert subject.wait_idle(100)
        dead = list(subject.dead)
        ends = acknowledged + Counter(letter.body for letter in dead)
        assert ends == Counter(encode(judged(number)) for number in range(count))
        assert {letter.reason for letter in dead} == {
            "never",
            "bad luck",
            "RuntimeError: worse luck",
        }


# -- the local bus
# --------------------------------------------------------------------------------------------------


def test_a_dead_letter_that_cannot_be_stored_does_not_stop_the_bus() -> None:
    def refuse(letter: DeadLetter) -> None:
        raise OSError("disk full")

    bus = LocalBus(on_dead=refuse)
    consumer = Consumer(lambda event: [Outcome("dead", "never")])
    bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
    bus.publish([judged(0), judged(1)])
    assert bus.wait_idle(5)
    assert len(consumer.seen) == 2
    bus.close(grace_s=5)


def test_a_queue_is_served_once() -> None:
    bus = LocalBus()
    bus.serve("labeler", ["ReviewJudged"], Consumer(), concurrency=1)
    with pytest.raises(ValueError, match="queue 'labeler' is served already"):
        bus.serve("labeler", ["ReviewJudged"], Consumer(), concurrency=1)
    bus.close(grace_s=5)


def test_depths_tell_what_waits_and_runs() -> None:
    bus, may_end = LocalBus(), threading.Event()
    bus.serve(
        "labeler",
        ["ReviewJudged"],
        lambda delivery: (may_end.wait(5) and ACK) or Outcome("failed"),
        concurrency=1,
    )
    bus.publish(judged(number) for number in range(3))
    assert bus.depths() == {"labeler": 3}
    may_end.set()
    assert bus.wait_idle(5)
    assert bus.depths() == {"labeler": 0}
    bus.close(grace_s=5)


def test_a_replay_ends_though_what_it_delivers_dies_again(broker: Broker) -> None:
    with rabbitmq(broker) as subject:
        assert isinstance(subject.dead, DeadOnBroker)
        subject.bus.serve(
            "labeler", ["ReviewJudged"], lambda delivery: Outcome("dead", "never"), concurrency=1
        )
        subject.bus.publish(map(judged, range(3)))
        assert subject.wait_idle(10)
        chosen: list[bytes] = []

        def choose(letter: DeadLetter) -> bool:
            assert len(chosen) < 10
            chosen.append(letter.body)
            time.sleep(0.3)  # meanwhile the one before dies again
            return True

        assert subject.dead.letters.replay(choose) == 3
        assert subject.wait_idle(10)
        assert Counter(chosen) == Counter(letter.body for letter in subject.dead)


def test_a_broker_says_since_when_a_message_could_be_delivered(broker: Broker) -> None:
    """A message that was put off could not be delivered before its delay was over: that is no wait
    of the queue.
    """
    seen: list[tuple[float | None, float]] = []

    def process(delivery: Delivery) -> Outcome:
        seen.append((delivery.published_s, time.time()))
        return Outcome("requeue", after_s=0.5) if len(seen) == 1 else ACK

    with rabbitmq(broker) as subject:
        subject.bus.serve("labeler", ["ReviewJudged"], process, concurrency=1)
        began_s = time.time()
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(20)
    (first, first_seen), (second, second_seen) = seen
    assert first is not None and second is not None
    assert began_s - 0.001 <= first <= first_seen
    assert first_seen + 0.498 <= second <= second_seen + 0.1


def test_a_lost_connection_is_counted_and_what_it_had_comes_again_as_redelivered(
    broker: Broker,
) -> None:
    """What was delivered before, and the copy of it that was put off, can be told from a first
    delivery.
    """
    seen: list[tuple[bool, int]] = []
    lost = threading.Event()

    def process(delivery: Delivery) -> Outcome:
        seen.append((delivery.redelivered, delivery.attempt))
        if len(seen) == 1:
            lost.wait(30)
        return Outcome("requeue", after_s=0.1) if len(seen) == 2 else ACK

    with rabbitmq(broker) as subject:
        subject.bus.serve("labeler", ["ReviewJudged"], process, concurrency=2)
        subject.bus.publish([judged(0)])
        assert wait_until(lambda: bool(seen), 10)
        assert subject.bus.losses() == 0
        assert wait_until(lambda: cut_connections(broker) > 0 or subject.bus.losses() > 0, 30)
        assert wait_until(lambda: len(seen) == 3, 30), seen
        lost.set()
        assert subject.wait_idle(20)
        assert subject.bus.losses() == 1
    assert seen == [(False, 1), (True, 2), (False, 2)]
