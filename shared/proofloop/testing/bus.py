"""The contract of a bus: events are delivered at least once, failed deliveries come again, and
deliveries that cannot work become dead letters.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog

from proofloop.bus import ACK, DELIVERY_LIMIT, BusState, DeadLetter, Delivery, Outcome
from proofloop.schema.events import (
    ModelPublished,
    ProofReviewed,
    ReviewJudged,
    decode,
    encode,
)
from proofloop.testing.bus_subject import BusSubject, Consumer, judged


class BusContract:
    """Override `subject` with a fixture that opens a bus and closes it after the test."""

    @pytest.fixture
    def subject(self) -> Iterator[BusSubject]:
        raise NotImplementedError("override `subject` with your bus")

    @pytest.fixture(autouse=True)
    def _quiet_log(self) -> Iterator[None]:
        """Hide the errors that these tests provoke."""
        structlog.configure(processors=[_drop])
        yield
        structlog.reset_defaults()

    def test_every_published_event_is_delivered(self, subject: BusSubject) -> None:
        consumer = Consumer()
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=3)
        subject.bus.publish(judged(number) for number in range(100))
        assert subject.wait_idle(10)
        assert sorted(consumer.seen) == sorted((judged(number).id, 1) for number in range(100))

    def test_events_go_to_the_queues_that_want_their_routing_key(self, subject: BusSubject) -> None:
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

    def test_a_failed_delivery_comes_again_with_a_higher_attempt(self, subject: BusSubject) -> None:
        consumer = Consumer(lambda event: [Outcome("failed", "oops")] * (DELIVERY_LIMIT - 1))
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=2)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(10)
        assert consumer.seen == [
            (judged(0).id, attempt) for attempt in range(1, DELIVERY_LIMIT + 1)
        ]
        assert subject.dead == []

    def test_a_delivery_that_fails_up_to_the_limit_is_dead_with_its_last_reason(
        self, subject: BusSubject
    ) -> None:
        consumer = Consumer(
            lambda event: [Outcome("failed", f"oops {number}") for number in range(1, 99)]
        )
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=2)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(10)
        assert len(consumer.seen) == DELIVERY_LIMIT
        assert subject.dead == [
            DeadLetter("labeler", f"oops {DELIVERY_LIMIT}", encode(judged(0)), DELIVERY_LIMIT)
        ]

    def test_a_refused_delivery_is_dead_at_once(self, subject: BusSubject) -> None:
        consumer = Consumer(lambda event: [Outcome("dead", "never")] if event == judged(1) else [])
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
        subject.bus.publish([judged(0), judged(1), judged(2)])
        assert subject.wait_idle(10)
        assert [one for one, _ in consumer.seen] == [judged(number).id for number in range(3)]
        assert subject.dead == [DeadLetter("labeler", "never", encode(judged(1)), 1)]

    def test_a_requeued_delivery_comes_after_its_delay_with_the_same_attempt(
        self, subject: BusSubject
    ) -> None:
        wish = Outcome("requeue", "away", after_s=0.05)
        consumer = Consumer(lambda event: [wish] * (2 * DELIVERY_LIMIT))
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(10)
        assert consumer.seen == [(judged(0).id, 1)] * (2 * DELIVERY_LIMIT + 1)
        assert (
            min(
                later - earlier
                for earlier, later in zip(consumer.at, consumer.at[1:], strict=False)
            )
            >= 0.05
        )
        assert subject.dead == []

    def test_a_working_bus_reports_no_trouble(self, subject: BusSubject) -> None:
        consumer = Consumer()
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=2)
        subject.bus.publish([judged(0)])
        assert subject.wait_idle(20)
        assert subject.bus.state() == BusState()

    def test_a_requeued_delivery_does_not_delay_others(self, subject: BusSubject) -> None:
        consumer = Consumer(
            lambda event: [Outcome("requeue", "away", after_s=2.0)] if event == judged(0) else []
        )
        subject.bus.serve("labeler", ["ReviewJudged"], consumer, concurrency=1)
        subject.bus.publish(judged(number) for number in range(5))
        assert subject.wait_idle(20)
        assert consumer.seen == [(judged(number).id, 1) for number in (*range(5), 0)]
        assert consumer.at[4] - consumer.at[0] < 2.0

    def test_many_delayed_deliveries_wake_every_idle_thread(self, subject: BusSubject) -> None:
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

    def test_a_delayed_delivery_does_not_wait_for_a_running_one(self, subject: BusSubject) -> None:
        requeued, came_again = threading.Event(), threading.Event()
        waited: list[bool] = []

        def consume(delivery: Delivery) -> Outcome:
            if delivery.body == encode(judged(1)):
                waited.append(came_again.wait(10))
            elif requeued.is_set():
                came_again.set()
            else:
                requeued.set()
                return Outcome("requeue", after_s=0.5)
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=2)
        subject.bus.publish([judged(0)])
        assert requeued.wait(10)
        time.sleep(0.1)  # until its thread waits for the delay
        subject.bus.publish([judged(1)])
        assert subject.wait_idle(20)
        assert waited == [True]

    def test_deliveries_run_at_once_up_to_the_concurrency(self, subject: BusSubject) -> None:
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

    def test_a_consumer_that_raises_fails_its_delivery_alone(self, subject: BusSubject) -> None:
        seen: list[bytes] = []

        def consume(delivery: Delivery) -> Outcome:
            seen.append(delivery.body)
            if delivery.body == encode(judged(0)):
                raise RuntimeError("a bug")
            return ACK

        subject.bus.serve("labeler", ["ReviewJudged"], consume, concurrency=1)
        subject.bus.publish([judged(0), judged(1)])
        assert subject.wait_idle(10)
        assert sorted(seen) == sorted([encode(judged(0))] * DELIVERY_LIMIT + [encode(judged(1))])
        assert subject.dead == [
            DeadLetter("labeler", "RuntimeError: a bug", encode(judged(0)), DELIVERY_LIMIT)
        ]

    def test_closing_waits_for_running_deliveries_and_begins_none(
        self, subject: BusSubject
    ) -> None:
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

    def test_closing_waits_no_longer_than_its_grace(self, subject: BusSubject) -> None:
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

    def test_the_bus_is_idle_only_when_follow_up_events_are_handled(
        self, subject: BusSubject
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

    def test_the_dead_letters_of_an_idle_bus_are_complete(self, subject: BusSubject) -> None:
        subject.bus.serve(
            "labeler", ["ReviewJudged"], lambda delivery: Outcome("dead", "never"), concurrency=4
        )
        for turn in range(subject.many // 200):
            subject.bus.publish([judged(turn)])
            assert subject.wait_idle(10)
            assert len(subject.dead) == turn + 1

    def test_none_of_many_messages_is_lost_among_random_failures(self, subject: BusSubject) -> None:
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


def _drop(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    raise structlog.DropEvent
