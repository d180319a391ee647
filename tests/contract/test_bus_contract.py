"""The contract of a bus, run on each, and further tests of each."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proofloop.bus import ACK, DeadLetter, Delivery, LocalBus, Outcome
from proofloop.bus.dead_letters import DeadLetters
from proofloop.testing.bus import BusContract
from proofloop.testing.bus_subject import BusSubject, Consumer, judged
from tests.integration.embedded_worker import EmbeddedBus
from tests.integration.servers import Broker, cut_connections, delete_namespace
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quiet_log")


@contextmanager
def local() -> Iterator[BusSubject]:
    dead: list[DeadLetter] = []
    bus = LocalBus(on_dead=dead.append)
    yield BusSubject(bus, bus.wait_idle, dead)
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
def rabbitmq(broker: Broker) -> Iterator[BusSubject]:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    bus = EmbeddedBus(broker.url, namespace=namespace)
    letters = DeadLetters(broker.url, namespace=namespace)

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
        yield BusSubject(bus, wait_idle, DeadOnBroker(letters), many=2_000)
    finally:
        bus.close(grace_s=10)
        delete_namespace(broker.url, namespace)


SUBJECTS = {"local": local, "rabbitmq": rabbitmq}


class TestBusContract(BusContract):
    @pytest.fixture(params=SUBJECTS)
    def subject(self, request: pytest.FixtureRequest) -> Iterator[BusSubject]:
        arguments = [request.getfixturevalue("broker")] if request.param == "rabbitmq" else []
        with SUBJECTS[request.param](*arguments) as one:
            yield one


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
    with pytest.raises(ValueError, match="queue 'labeler' is already served"):
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
        assert wait_until(lambda: bool(seen), 30)
        assert subject.bus.losses() == 0
        cut_connections(broker)
        assert wait_until(lambda: len(seen) == 3, 30), seen
        lost.set()
        assert subject.wait_idle(30)
        assert subject.bus.losses() == 1
    assert seen == [(False, 1), (True, 2), (False, 2)]
