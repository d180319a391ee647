"""The bus inside one process, with the real bus's features: redelivery, delivery limit, dead
letters, delayed retries.

Messages are only in memory: `--resume` continues a run from the store.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from proofloop.bus.base import DELIVERY_LIMIT, BusState, DeadLetter, Delivery, Outcome
from proofloop.schema.events import Event, encode

log = structlog.get_logger()


@dataclass
class _Queue:
    """Messages of one role: `ready` in order of arrival, `delayed` as a heap by due time, and the
    number of `running` ones. A message without an idle thread starts one, up to `concurrency`.
    """

    arrived: threading.Condition
    start_thread: Callable[[], None]
    concurrency: int
    threads: int = 0
    waiting: int = 0
    ready: deque[Delivery] = field(default_factory=deque)
    delayed: list[tuple[float, int, Delivery]] = field(default_factory=list)
    running: int = 0

    @property
    def idle(self) -> bool:
        return not (self.ready or self.delayed or self.running)


class LocalBus:
    """One lock guards all queues: they are few, and handling takes much longer than delivery."""

    def __init__(
        self,
        *,
        delivery_limit: int = DELIVERY_LIMIT,
        on_dead: Callable[[DeadLetter], None] | None = None,
        on_publish: Callable[[Event], None] | None = None,
    ) -> None:
        self._limit = delivery_limit
        self._on_dead = on_dead
        self._on_publish = on_publish
        self._queues: dict[str, _Queue] = {}
        self._topics: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._became_idle = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._ticket = itertools.count()
        self._open = True

    def publish(self, events: Iterable[Event]) -> None:
        batch = [(event, Delivery(encode(event))) for event in events]
        with self._lock:
            for event, delivery in batch:
                for queue in self._topics.get(event.routing_key, ()):
                    self._put(self._queues[queue], delivery)
        for event, _ in batch:
            if self._on_publish:
                self._on_publish(event)

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        with self._lock:
            if queue in self._queues:
                raise ValueError(f"queue {queue!r} is already served")
            start = partial(self._start_thread, queue, process)
            self._queues[queue] = _Queue(threading.Condition(self._lock), start, concurrency)
            for topic in topics:
                self._topics[topic].append(queue)

    def _start_thread(self, name: str, process: Callable[[Delivery], Outcome]) -> None:
        """Start a thread of the queue. The caller holds the lock."""
        number = self._queues[name].threads
        thread = threading.Thread(
            target=self._work, args=(name, process), name=f"{name}-{number}", daemon=True
        )
        self._queues[name].threads += 1
        self._threads.append(thread)
        thread.start()

    def depths(self) -> dict[str, int]:
        """The number of waiting and running messages by queue."""
        with self._lock:
            return {
                name: len(q.ready) + len(q.delayed) + q.running for name, q in self._queues.items()
            }

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until no message waits or runs. False after the timeout."""
        with self._lock:
            return self._became_idle.wait_for(
                lambda: all(queue.idle for queue in self._queues.values()), timeout_s
            )

    def state(self) -> BusState:
        with self._lock:
            return BusState(broken="" if self._open else "the bus is closed")

    def losses(self) -> int:
        return 0

    def close(self, *, grace_s: float = 5.0) -> None:
        with self._lock:
            self._open = False
            for queue in self._queues.values():
                queue.arrived.notify_all()
        deadline = time.monotonic() + grace_s
        for thread in tuple(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, name: str, process: Callable[[Delivery], Outcome]) -> None:
        queue = self._queues[name]
        while (delivery := self._take(queue)) is not None:
            try:
                outcome = process(delivery)
            except Exception as error:  # a dead thread would lose its message and a slot
                log.exception("delivery_failed", queue=name)
                outcome = Outcome("failed", f"{type(error).__name__}: {error}")
            if outcome.kind == "dead" or (
                outcome.kind == "failed" and delivery.attempt >= self._limit
            ):
                self._bury(DeadLetter(name, outcome.reason, delivery.body, delivery.attempt))
            self._settle(queue, delivery, outcome)

    def _bury(self, letter: DeadLetter) -> None:
        """Report a dead letter, before the delivery is settled: after `wait_idle` the letter is
        known.
        """
        try:
            if self._on_dead:
                self._on_dead(letter)
        except Exception:  # log the lost letter and continue with the others
            log.exception(
                "dead_letter_lost",
                queue=letter.queue,
                reason=letter.reason,
                body=letter.body[:1000],
            )

    def _take(self, queue: _Queue) -> Delivery | None:
        """Wait for the next delivery; None after the bus has closed."""
        with self._lock:
            while self._open:
                now = time.monotonic()
                while queue.delayed and queue.delayed[0][0] <= now:
                    self._put(queue, heapq.heappop(queue.delayed)[2])
                if queue.ready:
                    queue.running += 1
                    return queue.ready.popleft()
                queue.waiting += 1
                queue.arrived.wait(queue.delayed[0][0] - now if queue.delayed else None)
                queue.waiting -= 1
        return None

    def _settle(self, queue: _Queue, delivery: Delivery, outcome: Outcome) -> None:
        """Apply the outcome of a delivery."""
        with self._lock:
            queue.running -= 1
            match outcome.kind:
                case "requeue":
                    heapq.heappush(
                        queue.delayed,
                        (time.monotonic() + outcome.after_s, next(self._ticket), delivery),
                    )
                    queue.arrived.notify()
                case "failed" if delivery.attempt < self._limit:
                    self._put(queue, replace(delivery, attempt=delivery.attempt + 1))
            if queue.idle:
                self._became_idle.notify_all()

    def _put(self, queue: _Queue, delivery: Delivery) -> None:
        queue.ready.append(delivery)
        # one idle thread must stay: it waits for the delayed messages
        needed = len(queue.ready) + bool(queue.delayed)
        is_short = queue.waiting < needed and queue.threads < queue.concurrency
        if is_short and self._open:
            queue.start_thread()
        queue.arrived.notify()
