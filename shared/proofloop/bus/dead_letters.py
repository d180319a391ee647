"""The dead letters of a broker: look at them, try them again, or drop them; and how full the queues
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pika import BasicProperties, BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from proofloop.bus.base import DELIVERY_LIMIT, DeadLetter
from proofloop.bus.link import connect, parse_url
from proofloop.bus.task_message import DELIVERIES, REASON, again, event_of
from proofloop.bus.tls import NO_TLS, Tls
from proofloop.bus.topology import ROUTES, Topology

GIVEN_UP = {
    "delivery_limit": (
        "given up by the broker: delivered again and again, and each time its"
        " worker died or was cut off"
    ),
    "rejected": "rejected",
    "expired": "expired",
}
"""The broker's own reasons, in words."""


@dataclass(frozen=True)
class Depth:
    """Messages ready in a role's queue, those that wait for another try, its dead letters, and the
    workers it has.
    """

    role: str
    ready: int
    later: int
    dead: int
    consumers: int


class DeadLetters:
    """What may be done to dead letters from outside; opens a connection for each piece of work."""

    def __init__(self, url: str, *, namespace: str = "proofloop", tls: Tls = NO_TLS) -> None:
        self._nodes, self._topology = parse_url(url, tls.context), Topology(namespace)

    def depths(self) -> list[Depth]:
        """How full the queues are; a role nobody declared is not among them."""
        with self._connection() as connection:
            found = [self._depth(connection.channel(), role) for role in ROUTES]
        return [depth for depth in found if depth is not None]

    def unserved(self, roles: Iterable[str]) -> tuple[str, ...]:
        """Those of the roles that no worker consumes."""
        served = {depth.role for depth in self.depths() if depth.consumers}
        return tuple(role for role in roles if role not in served)

    def letters(self) -> Iterator[DeadLetter]:
        """Every dead letter; each stays where it is."""
        for depth in filter(lambda depth: depth.dead, self.depths()):
            with self._connection() as connection:
                for _, letter, _ in self._taken(connection.channel(), depth):
                    yield letter

    def drop(self, chosen: Callable[[DeadLetter], bool]) -> int:
        """Forget the chosen; how many they were."""
        return self._settle(chosen, replayed=False)

    def replay(self, chosen: Callable[[DeadLetter], bool]) -> int:
        """Give the chosen back to their queues, as if they were new; how many they were."""
        return self._settle(chosen, replayed=True)

    def _settle(self, chosen: Callable[[DeadLetter], bool], *, replayed: bool) -> int:
        count = 0
        for depth in filter(lambda depth: depth.dead, self.depths()):
            with self._connection() as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                for tag, letter, properties in self._taken(channel, depth):
                    if not chosen(letter):
                        continue
                    if replayed:
                        queue = self._topology.queue(depth.role).name
                        copy = again("", queue, properties.headers or {}, letter.body, {})
                        channel.basic_publish("", queue, copy.body, copy.properties, mandatory=True)
                    channel.basic_ack(tag)
                    count += 1
        return count

    def _taken(
        self, channel: BlockingChannel, depth: Depth
    ) -> Iterator[tuple[int, DeadLetter, BasicProperties]]:
        """As many dead letters of a role as there were, not acknowledged: closing the channel puts
        them back.

        Not until there are none: what is replayed may die again in the meantime, and come last.
        """
        for _ in range(depth.dead):
            method, properties, body = channel.basic_get(self._topology.dead_queue(depth.role).name)
            if method is None or properties is None or body is None:
                return
            headers = properties.headers or {}
            deaths = headers.get("x-death") or [{}]
            by_broker = str(deaths[0].get("reason", "unknown"))
            letter = DeadLetter(
                queue=depth.role,
                reason=headers.get(REASON) or GIVEN_UP.get(by_broker, by_broker),
                body=event_of(body),
                deliveries=headers.get(DELIVERIES, DELIVERY_LIMIT + 1),
            )
            yield method.delivery_tag, letter, properties

    def _depth(self, channel: BlockingChannel, role: str) -> Depth | None:
        """None if there are no such queues; the broker then closes the channel."""
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
    def _connection(self) -> Iterator[BlockingConnection]:
        connection = connect(self._nodes)
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()
