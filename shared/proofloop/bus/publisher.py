"""Publishing with confirms: messages go out through a window, and `publish` returns when the broker
has all of its own.

A confirm for each message one at a time costs a round trip and a disk sync each; those in a window
share them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import structlog
from pika import BasicProperties, URLParameters
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic

from proofloop.bus.link import Link
from proofloop.errors import BusError

log = structlog.get_logger()

WINDOW = 500
"""Messages under way at once: more is no faster and costs memory."""


@dataclass(frozen=True)
class Message:
    """What goes out. `mandatory`: it is an error if no queue takes it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool


class _Batch:
    """The messages of one `publish`. Only its caller counts what is sent, only the link's thread
    what is confirmed.
    """

    def __init__(self) -> None:
        self.sent = self.confirmed = 0
        self.is_whole = False
        self.error: BusError | None = None
        self.is_over = threading.Event()

    def confirm(self) -> None:
        self.confirmed += 1
        self.look()

    def look(self) -> None:
        """Both threads look after their own last step, so one of them sees the end."""
        if self.is_whole and self.confirmed == self.sent:
            self.is_over.set()

    def fail(self, reason: str) -> None:
        self.error = BusError(reason)
        self.is_over.set()


class Publisher:
    """Safe to share between threads: their batches follow one another through one window, which
    slides.

    What was sent when the connection was lost is sent again, so a message can arrive twice. Only
    the link's thread touches what is under way; other threads append to what waits.
    """

    def __init__(self, nodes: Sequence[URLParameters], prepare: Callable[[], None]) -> None:
        self._waiting: deque[tuple[_Batch, Message]] = deque()
        self._under_way: dict[int, tuple[_Batch, Message]] = {}
        self._channel: Channel | None = None
        self._tag = 0
        self._is_closed = False
        self._link = Link("publisher", nodes, prepare=prepare, opened=self._opened, lost=self._lost)

    def publish(self, messages: Iterable[Message], *, timeout_s: float) -> None:
        """Return when the broker has all of them. Raises BusError, and what making a message
        raises.

        The first are on their way while the rest is made.
        """
        batch, source = _Batch(), iter(messages)
        while part := list(islice(source, WINDOW)):
            batch.sent += len(part)
            self._waiting.extend([(batch, message) for message in part])
            self._link.call(self._fill)
        batch.is_whole = True
        batch.look()
        if self._is_closed or not batch.is_over.wait(timeout_s):
            batch.fail(
                "the broker did not confirm in time: it is away, or blocked because it lacks memory"
                " or disk"
            )
        if batch.error:
            raise batch.error

    @property
    def broken(self) -> str:
        """Why only a restart makes publishing go on; empty if nothing is wrong."""
        return self._link.problem

    def close(self) -> None:
        self._is_closed = True
        self._link.close()
        for batch, _ in self._waiting:
            batch.fail("the connection to the broker was closed")

    def _fill(self) -> None:
        """Send what waits until the window is full."""
        if self._channel is None:
            return
        while self._waiting and len(self._under_way) < WINDOW:
            batch, message = self._waiting.popleft()
            if batch.is_over.is_set():  # it failed: nobody waits for the rest
                continue
            self._tag += 1
            self._under_way[self._tag] = batch, message
            self._channel.basic_publish(
                message.exchange,
                message.routing_key,
                message.body,
                message.properties,
                message.mandatory,
            )

    def _opened(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed)
        self._channel, self._tag = channel, 0
        self._fill()

    def _lost(self) -> None:
        """What was under way goes first on the next connection, in its order."""
        self._channel = None
        self._waiting.extendleft(reversed(self._under_way.values()))
        self._under_way = {}

    def _confirmed(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        answer = frame.method
        for tag in self._tags(answer.delivery_tag, answer.multiple):
            batch, _ = self._under_way.pop(tag, (None, None))
            if batch is None:
                continue
            if isinstance(answer, Basic.Ack):
                batch.confirm()
            else:  # also where a queue's leader is gone: a new channel finds the next one
                batch.fail(
                    "the broker refused a message: a queue is full, its disk is, or its leader is"
                    " gone"
                )
                self._link.reopen("the broker refused a message")
                return
        self._fill()

    def _tags(self, last: int, multiple: bool) -> Iterable[int]:
        if not multiple:
            return (last,)
        return range(next(iter(self._under_way), last + 1), last + 1)

    def _returned(
        self, channel: Channel, method: Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        """A queue that must be there is not: come back by a new connection, which declares
        everything first.
        """
        log.warning("queue_missing", routing_key=method.routing_key)
        self._lost()
        self._link.reopen(f"no queue takes {method.routing_key}")
