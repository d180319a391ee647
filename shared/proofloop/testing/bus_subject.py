"""The material of the bus contract: the bus under test, an event, and a consumer that remembers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from proofloop.bus import ACK, Bus, DeadLetter, Delivery, Outcome
from proofloop.schema.events import Event, ReviewJudged, decode


@dataclass
class BusSubject:
    """A bus under test.

    `wait_idle` waits up to so many seconds until nothing is queued, delayed or running; true if it
      is so. `dead`: the dead letters so far; a collection that compares equal to a list.
      `many`: so many messages take the bus some seconds.
    """

    bus: Bus
    wait_idle: Callable[[float], bool]
    dead: Collection[DeadLetter] = field(default_factory=list)
    many: int = 10_000


def judged(number: int) -> ReviewJudged:
    return ReviewJudged(run_id="r1", proof_id=f"p{number}", index=0)


class Consumer:
    """Remembers its deliveries. `plan` gives the outcomes of an event's first deliveries; then it
    acknowledges.
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
