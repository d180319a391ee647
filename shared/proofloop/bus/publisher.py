"""Publishing with confirms: messages go out in windows, and `publish` returns when the broker has every one of them.

A confirm for each message one at a time costs a round trip and a disk sync each; a window shares them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

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


class _Lost(Exception):
    """The connection ended before the broker answered: send the window again."""


class _Window:
    """Some messages, and whether the broker has them all."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.settled: Future[None] = Future()
        self._missing = len(messages)

    def confirm(self) -> None:
        self._missing -= 1
        if self._missing == 0 and not self.settled.done():
            self.settled.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(error)


class Publisher:
    """Safe to share between threads: their windows travel side by side on one channel.

    What was sent when the connection was lost is sent again, so a message can arrive twice.
    """

    def __init__(self, parameters: URLParameters, prepare: Callable[[], None]) -> None:
        self._unconfirmed: dict[int, _Window] = {}
        self._channel: Channel | None = None
        self._tag = 0
        self._up, self._closed = threading.Event(), False
        self._link = Link("publisher", parameters, prepare=prepare, opened=self._opened, lost=self._lost)

    def publish(self, messages: Sequence[Message], *, timeout_s: float) -> None:
        """Return when the broker has all of them. Raises BusError."""
        deadline = time.monotonic() + timeout_s
        for start in range(0, len(messages), WINDOW):
            self._publish(messages[start : start + WINDOW], deadline)

    def close(self) -> None:
        self._closed = True
        self._link.close()

    def _publish(self, messages: Sequence[Message], deadline: float) -> None:
        while (left_s := deadline - time.monotonic()) > 0 and not self._closed:
            window = _Window(messages)
            if not self._up.wait(min(left_s, 1.0)) or not self._link.call(partial(self._send, window)):
                continue
            try:
                return window.settled.result(left_s)
            except (_Lost, TimeoutError):
                continue
        raise BusError("the broker did not confirm in time: it is away, or blocked because it lacks memory or disk")

    def _send(self, window: _Window) -> None:
        if self._channel is None:
            return window.fail(_Lost())
        for message in window.messages:
            self._tag += 1
            self._unconfirmed[self._tag] = window
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties, message.mandatory
            )

    def _opened(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed)
        self._channel, self._tag = channel, 0
        self._up.set()

    def _lost(self) -> None:
        self._up.clear()
        self._channel = None
        windows, self._unconfirmed = self._unconfirmed, {}
        for window in windows.values():
            window.fail(_Lost())

    def _confirmed(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        answer = frame.method
        for tag in self._tags(answer.delivery_tag, answer.multiple):
            window = self._unconfirmed.pop(tag, None)
            if window is None:
                continue
            if isinstance(answer, Basic.Ack):
                window.confirm()
            else:
                window.fail(BusError("the broker refused a message: a queue is full or its disk is"))

    def _tags(self, last: int, multiple: bool) -> list[int]:
        if not multiple:
            return [last]
        first = next(iter(self._unconfirmed), last + 1)
        return list(range(first, last + 1))

    def _returned(self, channel: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        """A queue that must be there is not: come back by a new connection, which declares everything first."""
        log.warning("queue_missing", routing_key=method.routing_key)
        self._lost()
        self._link.reopen(f"no queue takes {method.routing_key}")
