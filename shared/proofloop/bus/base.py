"""The bus seam: publishes events in confirmed batches and delivers each at least once.

What a caller may not assume: that a message is delivered only once, that events arrive in order, or
that a redelivered event reaches the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proofloop.schema.events import Event


@dataclass(frozen=True)
class Delivery:
    """One delivery of a message. `attempt` counts from 1.

    `published_s`: the Unix time from which the bus could deliver it, None if unknown.
    `redelivered`: an earlier delivery was not settled; another process or thread may still work on
      it.
    """

    body: bytes
    attempt: int = 1
    published_s: float | None = None
    redelivered: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of handling a delivery.

    ack: done. requeue: deliver again after `after_s`, without counting a failure. failed: deliver
    again and count a failure, up to the delivery limit. dead: move to the dead letters at once,
    with `reason`. `error`: the exception behind it, if any.
    """

    kind: Literal["ack", "requeue", "failed", "dead"]
    reason: str = ""
    after_s: float = 0.0
    error: BaseException | None = field(default=None, compare=False)


ACK = Outcome("ack")

DELIVERY_LIMIT = 4
"""The number of failures after which a message becomes a dead letter."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that its role could not handle, with the reason."""

    queue: str
    reason: str
    body: bytes
    deliveries: int


@dataclass(frozen=True)
class BusState:
    """Why a bus delivers nothing now. Both are empty while it delivers.

    broken: only a restart of the process helps. unavailable: the bus may recover by itself.
    """

    broken: str = ""
    unavailable: str = ""


class Bus(Protocol):
    """One queue per role. `publish` returns when every event is safely queued."""

    def publish(self, events: Iterable[Event]) -> None: ...

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        """Start to deliver messages with these routing keys to `process`, in `concurrency` threads.

        Returns at once.
        """
        ...

    def state(self) -> BusState:
        """Whether the bus delivers the served queues. Never waits."""
        ...

    def losses(self) -> int:
        """The number of times that this process lost its connection while it worked on deliveries.
        The broker delivers them again.
        """
        ...

    def close(self, *, grace_s: float) -> None:
        """Stop delivering and wait up to `grace_s` for running handlers. Unfinished messages are
        delivered again later.
        """
        ...
