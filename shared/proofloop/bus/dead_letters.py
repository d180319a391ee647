"""The dead letters of a broker: list, replay or drop them. Also counts the messages in all
queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pika import BasicProperties, BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from proofloop.bus.base import DELIVERY_LIMIT, DeadLetter
from proofloop.bus.broker_connection import broker_error, connect, parse_url
from proofloop.bus.task_message import DELIVERIES, REASON, copy_of, event_of
from proofloop.bus.tls import NO_TLS, Tls
from proofloop.bus.topology import ROUTES, Topology

GIVEN_UP = {
    "delivery_limit": (
        "the delivery limit was reached: each time its worker died or lost the connection"
    ),
    "rejected": "rejected",
    "expired": "expired",
}
"""Text for the broker's own reasons."""

RETURN_S, RETURN_CHECK_S = 10.0, 0.01
"""How long the end of reading waits for the broker to return the letters, and between two looks."""


@dataclass(frozen=True)
class Depth:
    """The messages in a role's queue, its delayed messages, its dead letters, and its workers."""

    role: str
    ready: int
    later: int
    dead: int
    consumers: int


class DeadLetters:
    """Access to the dead letters. Each method opens its own connections. Raises BusError,
    ConfigError.
    """

    def __init__(self, url: str, *, namespace: str = "proofloop", tls: Tls = NO_TLS) -> None:
        self._nodes, self._topology = parse_url(url, tls.context), Topology(namespace)

    def depths(self) -> list[Depth]:
        """The message counts of all roles with declared queues."""
        with self._connection() as connection:
            found = [self._depth(connection.channel(), role) for role in ROUTES]
        return [depth for depth in found if depth is not None]

    def unserved(self, roles: Iterable[str]) -> tuple[str, ...]:
        """The roles without a worker."""
        served = {depth.role for depth in self.depths() if depth.consumers}
        return tuple(role for role in roles if role not in served)

    def letters(self) -> Iterator[DeadLetter]:
        """All dead letters. They stay in their queues."""
        for depth in filter(lambda depth: depth.dead, self.depths()):
            with self._queue(depth.role) as queue:
                for _, letter, _ in queue.take(depth.dead):
                    yield letter

    def drop(self, chosen: Callable[[DeadLetter], bool]) -> int:
        """Delete the chosen dead letters and return their number."""
        return self._settle(chosen, replayed=False)

    def replay(self, chosen: Callable[[DeadLetter], bool]) -> int:
        """Publish the chosen dead letters to their queues as new messages and return their
        number.
        """
        return self._settle(chosen, replayed=True)

    def _settle(self, chosen: Callable[[DeadLetter], bool], *, replayed: bool) -> int:
        count = 0
        for depth in filter(lambda depth: depth.dead, self.depths()):
            with self._queue(depth.role) as queue:
                for tag, letter, properties in queue.take(depth.dead):
                    if not chosen(letter):
                        continue
                    if replayed:
                        name = self._topology.queue(depth.role).name
                        copy = copy_of("", name, properties.headers or {}, letter.body, {})
                        queue.channel.basic_publish(
                            "", name, copy.body, copy.properties, mandatory=True
                        )
                    queue.settle(tag)
                    count += 1
        return count

    def _depth(self, channel: BlockingChannel, role: str) -> Depth | None:
        """The counts of a role; None if its queues do not exist. The broker then closes the
        channel.
        """
        queues = (
            self._topology.queue(role),
            self._topology.later_queue(role),
            self._topology.dead_queue(role),
        )
        try:
            found = [channel.queue_declare(queue.name, passive=True).method for queue in queues]
            ready, later, dead = (queue.message_count for queue in found)
            return Depth(role, ready, later, dead, found[0].consumer_count)
        except ChannelClosedByBroker:
            return None

    @contextmanager
    def _queue(self, role: str) -> Iterator[_DeadQueue]:
        with self._connection() as connection:
            queue = _DeadQueue(connection.channel(), role, self._topology.dead_queue(role).name)
            try:
                yield queue
            finally:
                queue.give_back()

    @contextmanager
    def _connection(self) -> Iterator[BlockingConnection]:
        """A connection. Raises BusError if it is lost in the block."""
        connection = connect(self._nodes)
        try:
            yield connection
        except (AMQPError, OSError) as error:
            raise broker_error(error, self._nodes) from error
        finally:
            with suppress(AMQPError, OSError):
                if connection.is_open:
                    connection.close()


class _DeadQueue:
    """The dead letters of a role, read on a channel of its own."""

    def __init__(self, channel: BlockingChannel, role: str, name: str) -> None:
        self.channel, self._role, self._name = channel, role, name
        self._kept = 0
        channel.confirm_delivery()

    def take(self, count: int) -> Iterator[tuple[int, DeadLetter, BasicProperties]]:
        """The dead letters with their delivery tags. Stops at the counted number, because a
        replayed one may die again meanwhile.
        """
        for _ in range(count):
            method, properties, body = self.channel.basic_get(self._name)
            if method is None or properties is None or body is None:
                return
            self._kept += 1
            yield method.delivery_tag, self._letter(properties, body), properties

    def settle(self, tag: int) -> None:
        """Remove a dead letter from the queue."""
        self.channel.basic_ack(tag)
        self._kept -= 1

    def give_back(self) -> None:
        """Return the other dead letters, and wait until the queue shows them: the next reader would
        see too few.
        """
        if not self._kept or not self.channel.is_open:
            return
        self.channel.basic_nack(multiple=True)
        deadline = time.monotonic() + RETURN_S
        while self._count() < self._kept and time.monotonic() < deadline:
            time.sleep(RETURN_CHECK_S)

    def _count(self) -> int:
        return int(self.channel.queue_declare(self._name, passive=True).method.message_count)

    def _letter(self, properties: BasicProperties, body: bytes) -> DeadLetter:
        headers = properties.headers or {}
        deaths = headers.get("x-death") or [{}]
        by_broker = str(deaths[0].get("reason", "unknown"))
        return DeadLetter(
            queue=self._role,
            reason=headers.get(REASON) or GIVEN_UP.get(by_broker, by_broker),
            body=event_of(body),
            deliveries=headers.get(DELIVERIES, DELIVERY_LIMIT + 1),
        )
