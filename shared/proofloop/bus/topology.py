"""What exists in the broker, declared the same way by every process: whoever comes first makes it, the others find it.

One topic exchange; for each role a quorum queue, one for what waits for another try, and one for dead letters. Nothing
is deleted here.

An event with no queue of its own is dropped, as everywhere in AMQP. So every process declares the queues of the four
roles that every run needs; the trainer's is declared by the trainer and by whoever poses a run that trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from proofloop.bus.base import DELIVERY_LIMIT
from proofloop.errors import ConfigError

ROUTES: Mapping[str, tuple[str, ...]] = {
    "generator": ("ProblemPosed", "ModelPublished.generator"),
    "verifier": ("ProofWritten", "ModelPublished.verifier"),
    "meta_verifier": ("ProofReviewed", "ModelPublished.meta_verifier"),
    "labeler": ("ReviewJudged",),
    "trainer": ("ProofLabeled",),
}
"""The routing keys of each role, for those who declare its queue without having it installed."""

NEVER = 1_000_000
"""A dead letter comes back each time somebody looks at it; RabbitMQ 4 would drop it after 20 looks."""


class Topology:
    """The names below one namespace, and their declaration."""

    def __init__(self, namespace: str) -> None:
        self.exchange = namespace
        self.dead_exchange = f"{namespace}.dead"

    def queue(self, role: str) -> str:
        return f"{self.exchange}.{role}"

    def later_queue(self, role: str) -> str:
        """Nobody consumes it: a message goes back to its role's queue when its own time to live is over.

        RabbitMQ expires head-first, so one may wait for the longer wait of another before it.
        """
        return f"{self.exchange}.{role}.later"

    def dead_queue(self, role: str) -> str:
        return f"{self.exchange}.{role}.dead"

    def declare(self, channel: BlockingChannel, routes: Mapping[str, Iterable[str]]) -> None:
        """Make what is missing. Raises ConfigError where something else has one of our names."""
        try:
            channel.exchange_declare(self.exchange, "topic", durable=True)
            channel.exchange_declare(self.dead_exchange, "direct", durable=True)
            for role, topics in routes.items():
                self._declare_queue(channel, role, topics)
        except ChannelClosedByBroker as error:
            if error.reply_code != 406:
                raise
            raise ConfigError(
                f"the broker has a queue or exchange of ours with other settings: {error.reply_text}",
                "drain and delete it, or choose another PROOFLOOP_NAMESPACE",
            ) from error

    def _declare_queue(self, channel: BlockingChannel, role: str, topics: Iterable[str]) -> None:
        channel.queue_declare(self.dead_queue(role), durable=True, arguments=_quorum(NEVER))
        channel.queue_bind(self.dead_queue(role), self.dead_exchange, role)
        channel.queue_declare(
            self.queue(role), durable=True, arguments=_quorum(DELIVERY_LIMIT, self.dead_exchange, role)
        )
        channel.queue_declare(self.later_queue(role), durable=True, arguments=_quorum(NEVER, "", self.queue(role)))
        for topic in topics:
            channel.queue_bind(self.queue(role), self.exchange, topic)


def _quorum(delivery_limit: int, dead_exchange: str | None = None, routing_key: str = "") -> dict[str, Any]:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}
    if dead_exchange is None:
        return arguments
    return arguments | {
        "x-dead-letter-exchange": dead_exchange,
        "x-dead-letter-routing-key": routing_key,
        "x-dead-letter-strategy": "at-least-once",  # before RabbitMQ 3.10 unknown and ignored
        "x-overflow": "reject-publish",  # what at-least-once asks for
    }
