"""The exchanges and queues in the broker, as kombu objects for worker, publisher, tests and tools.

One topic exchange. Each role has a quorum queue, a queue for delayed retries, and a queue for dead
letters. Every process declares the same ones; the first process creates them. No code here deletes
any.

AMQP drops an event without a bound queue. Therefore every process declares the queues of the four
roles that every run needs. The trainer's queue is declared by the trainer, and by the command that
starts a run with training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kombu.connection import Connection
from kombu.entity import Exchange, Queue, binding

from proofloop.bus.base import DELIVERY_LIMIT

ROUTES: Mapping[str, tuple[str, ...]] = {
    "generator": ("ProblemPosed", "ModelPublished.generator"),
    "verifier": ("ProofWritten", "ModelPublished.verifier"),
    "meta_verifier": ("ProofReviewed", "ModelPublished.meta_verifier"),
    "labeler": ("ReviewJudged",),
    "trainer": ("ProofLabeled", "FineTuningPosed"),
}
"""The routing keys of each role, for processes that declare its queue without having the role
installed.
"""

NEVER = 1_000_000
"""A delivery limit that is never reached. Reading a dead letter counts as a delivery, and RabbitMQ
4 drops messages after 20 by default.
"""


class Topology:
    """The exchanges and queues below one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.exchange = Exchange(namespace, "topic", durable=True)
        self.dead_exchange = Exchange(f"{namespace}.dead", "direct", durable=True)

    def queue(self, role: str, topics: Iterable[str] = ()) -> Queue:
        """The role's queue, bound to these routing keys."""
        return Queue(
            f"{self.namespace}.{role}",
            bindings=[binding(self.exchange, routing_key=topic) for topic in topics],
            queue_arguments=_dead_lettering(DELIVERY_LIMIT, self.dead_exchange.name, role),
        )

    def later_queue(self, role: str) -> Queue:
        """The queue for delayed retries. It has no consumer: a message returns to its role's queue
        when it expires.

        RabbitMQ expires head-first, so a short wait can last as long as a longer one before it.
        """
        arguments = _dead_lettering(NEVER, "", f"{self.namespace}.{role}")
        return Queue(f"{self.namespace}.{role}.later", queue_arguments=arguments)

    def dead_queue(self, role: str) -> Queue:
        return Queue(
            f"{self.namespace}.{role}.dead",
            self.dead_exchange,
            role,
            queue_arguments=_quorum(NEVER),
        )

    def declare(self, connection: Connection, routes: Mapping[str, Iterable[str]]) -> None:
        """Create missing exchanges and queues."""
        channel = connection.channel()
        self.exchange(channel).declare()
        for role, topics in routes.items():
            for queue in (self.dead_queue(role), self.queue(role, topics), self.later_queue(role)):
                queue(channel).declare()


def _quorum(delivery_limit: int) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettering(delivery_limit: int, exchange: str, routing_key: str) -> dict[str, Any]:
    return _quorum(delivery_limit) | {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": routing_key,
        "x-dead-letter-strategy": "at-least-once",  # before RabbitMQ 3.10 unknown and ignored
        "x-overflow": "reject-publish",  # at-least-once requires it
    }
