"""Publishes messages with confirms: `publish` returns when the broker has confirmed all of its
messages.

Up to `WINDOW` messages wait for confirms at once and share round trips and disk syncs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import structlog
from pika import BasicProperties, URLParameters
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic

from proofloop.bus.broker_connection import BrokerConnection
from proofloop.errors import BusError

log = structlog.get_logger()

WINDOW = 500
"""The most unconfirmed messages: more is not faster and costs memory."""


class Message(NamedTuple):
    """A message to publish. `mandatory`: the broker returns it if no queue takes it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool


class _Batch:
    """The messages of one `publish`. The caller counts `sent`, the connection's thread
    `confirmed`.
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
        """Check for the end. Both threads call this after their last step, so one of them sees
        it.
        """
        if self.is_whole and self.confirmed == self.sent:
            self.is_over.set()

    def fail(self, reason: str) -> None:
        self.error = BusError(reason)
        self.is_over.set()


class Publisher:
    """Safe to share between threads. All batches share one sliding window.

    After a lost connection, unconfirmed messages are sent again, so a message can arrive twice.
    Only the connection's thread uses `_unconfirmed`; other threads append to `_waiting`.
    """

    def __init__(self, nodes: Sequence[URLParameters], prepare: Callable[[], None]) -> None:
        self._waiting: deque[tuple[_Batch, Message]] = deque()
        self._unconfirmed: dict[int, tuple[_Batch, Message]] = {}
        self._channel: Channel | None = None
        self._tag = 0
        self._is_closed = False
        self._connection = BrokerConnection(
            "publisher", nodes, prepare=prepare, opened=self._opened, lost=self._lost
        )

    def publish(self, messages: Iterable[Message], *, timeout_s: float) -> None:
        """Publish the messages and wait for all confirms. Raises BusError.

        It sends the first messages while the iterable still makes the others.
        """
        batch, source = _Batch(), iter(messages)
        while part := list(islice(source, WINDOW)):
            batch.sent += len(part)
            self._waiting.extend([(batch, message) for message in part])
            self._connection.call(self._fill)
        batch.is_whole = True
        batch.look()
        if self._is_closed or not batch.is_over.wait(timeout_s):
            batch.fail(
                "the broker did not confirm in time: it is unavailable, or it blocks publishers"
                " because it lacks memory or disk space"
            )
        if batch.error:
            raise batch.error

    @property
    def broken(self) -> str:
        """The reason why publishing needs a restart of the process; empty if it works."""
        return self._connection.problem

    def close(self) -> None:
        self._is_closed = True
        self._connection.close()
        for batch, _ in self._waiting.copy():  # other threads may still append
            batch.fail("the connection to the broker was closed")

    def _fill(self) -> None:
        """Send waiting messages until the window is full."""
        if self._channel is None:
            return
        while self._waiting and len(self._unconfirmed) < WINDOW:
            batch, message = self._waiting.popleft()
            if batch.is_over.is_set():  # it failed: skip the rest
                continue
            self._tag += 1
            self._unconfirmed[self._tag] = batch, message
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
        """Put unconfirmed messages back to the front, in their order."""
        self._channel = None
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed = {}

    def _confirmed(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        answer = frame.method
        for tag in self._tags(answer.delivery_tag, answer.multiple):
            batch, _ = self._unconfirmed.pop(tag, (None, None))
            if batch is None:
                continue
            if isinstance(answer, Basic.Ack):
                batch.confirm()
            else:  # a new channel finds the new leader of a queue
                batch.fail(
                    "the broker refused a message: a queue or the disk is full, or a queue has"
                    " lost its leader"
                )
                self._connection.reopen("the broker refused a message")
                return
        self._fill()

    def _tags(self, last: int, multiple: bool) -> Iterable[int]:
        if not multiple:
            return (last,)
        return range(next(iter(self._unconfirmed), last + 1), last + 1)

    def _returned(
        self, channel: Channel, method: Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        """A queue is missing: reconnect, because a new connection first declares all queues."""
        log.warning("queue_missing", routing_key=method.routing_key)
        self._lost()
        self._connection.reopen(f"no queue takes {method.routing_key}")
