"""The bus seam: events go out in confirmed batches and come in one delivery at a time, at least
once.

What a caller may not assume: that a delivery comes only once, that events arrive in order, or that
a redelivered event comes to the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proofloop.schema.events import Event


@dataclass(frozen=True)
class Delivery:
    """One message as it came: `attempt` counts from 1.

    `published_s`: since when it could be delivered, as Unix time; None where the bus does not say.
      `redelivered`: it was delivered before and not settled, so another process, or another thread
      of this one, may still work on it.
    """

    body: bytes
    attempt: int = 1
    published_s: float | None = None
    redelivered: bool = False


@dataclass(frozen=True)
class Outcome:
    """What becomes of a delivery.

    ack: done. requeue: again after `after_s`, not counted as a failure: it keeps its `attempt`.
    failed: again, counted against the delivery limit. dead: to the dead letters at once, with
    `reason`. `error`: the defect behind it, if any.
    """

    kind: Literal["ack", "requeue", "failed", "dead"]
    reason: str = ""
    after_s: float = 0.0
    error: BaseException | None = field(default=None, compare=False)


ACK = Outcome("ack")

DELIVERY_LIMIT = 4
"""A message that failed this often is dead: what failed four times will fail again."""


@dataclass(frozen=True)
class DeadLetter:
    """A message nobody could handle, and why."""

    queue: str
    reason: str
    body: bytes
    deliveries: int


@dataclass(frozen=True)
class BusState:
    """Why a bus delivers nothing now; both are empty while it does.

    broken: only a restart of the process mends it. away: it may come back by itself.
    """

    broken: str = ""
    away: str = ""


class Bus(Protocol):
    """Queues, one a role. `publish` returns when every event is safely queued."""

    def publish(self, events: Iterable[Event]) -> None: ...

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        """Begin to deliver what arrives under these routing keys to `process`, from `concurrency`
        threads.

        Returns at once.
        """
        ...

    def state(self) -> BusState:
        """Whether everything served is being delivered. Never waits."""
        ...

    def losses(self) -> int:
        """How often this process lost its connection while it worked on deliveries, which are then
        delivered again.
        """
        ...

    def close(self, *, grace_s: float) -> None:
        """Deliver nothing new, wait up to `grace_s` for what runs; what did not finish is delivered
        again later.
        """
        ...
