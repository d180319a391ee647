"""The publishing side of the bus on RabbitMQ 3.10 or newer, over pika with confirms.

`CeleryBus` adds the consuming side for workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import chain

import structlog
from amqp.exceptions import AMQPError
from kombu.connection import Connection

from proofloop.bus.base import BusState, Delivery, Outcome
from proofloop.bus.broker_connection import broker_error, parse_url
from proofloop.bus.publisher import Message, Publisher
from proofloop.bus.task_message import task_message
from proofloop.bus.tls import NO_TLS, Tls
from proofloop.bus.topology import ROUTES, Topology
from proofloop.bus.tracing import traceparent
from proofloop.errors import BusError
from proofloop.schema.events import MAX_BODY_BYTES, Event, encode

log = structlog.get_logger()

PUBLISH_S = 30.0
"""How long `publish` waits for confirms: enough for a short outage of the broker."""

CONNECT_S = 5.0
"""The timeout of one attempt to connect."""


class RabbitBus:
    """Declares the queues and publishes. A process that serves a queue uses `CeleryBus`."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "proofloop",
        roles: Iterable[str] = (),
        connect_s: float = 15.0,
        tls: Tls = NO_TLS,
    ) -> None:
        """Declare the queues of `roles` and connect, for at most `connect_s`. Raises ConfigError,
        BusError.
        """
        self.topology = Topology(namespace)
        self._url, self._tls, self._nodes = url, tls, parse_url(url, tls.context)
        self._routes: dict[str, tuple[str, ...]] = {role: ROUTES[role] for role in roles}
        self._routed_keys = frozenset(chain.from_iterable(self._routes.values()))
        self._declare_patiently(connect_s)
        self._publisher = Publisher(self._nodes, self._declare)

    def publish(self, events: Iterable[Event]) -> None:
        self.send(map(self._message, events))

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        raise BusError(
            f"this process only publishes: start the role with `proofloop serve {queue}`"
        )

    def send(self, messages: Iterable[Message]) -> None:
        """Publish the messages and wait for all confirms. Raises BusError."""
        self._publisher.publish(messages, timeout_s=PUBLISH_S)

    def state(self) -> BusState:
        return BusState(broken=self._publisher.broken)

    def losses(self) -> int:
        return 0

    def close(self, *, grace_s: float = 5.0) -> None:
        self._publisher.close()

    def _message(self, event: Event) -> Message:
        body, id, key = encode(event), event.id, event.routing_key
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"{id}: {len(body)} bytes, an event may have at most {MAX_BODY_BYTES}")
        trace = {"traceparent": traceparent(event.run_id, getattr(event, "proof_id", id))}
        exchange, must_arrive = self.topology.exchange.name, key in self._routed_keys
        return task_message(exchange, key, key, id, body, headers=trace, must_arrive=must_arrive)

    def _declare(self) -> None:
        attempts = {
            "max_retries": len(self._nodes) - 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        }
        try:
            options = {
                "connect_timeout": CONNECT_S,
                "ssl": self._tls.for_kombu,
                "transport": self._tls.transport,
            }
            with closing(Connection(self._url, **options)) as connection:
                connection.ensure_connection(**attempts, reraise_as_library_errors=False)
                self.topology.declare(connection, dict(self._routes))
        except (AMQPError, OSError) as error:
            raise broker_error(error, self._nodes) from error

    def _declare_patiently(self, limit_s: float) -> None:
        deadline, is_told = time.monotonic() + limit_s, False
        while True:
            try:
                return self._declare()
            except BusError as error:
                if time.monotonic() > deadline:
                    raise
                if not is_told:
                    log.warning("waiting_for_broker", reason=str(error), for_at_most_s=limit_s)
                is_told = True
                time.sleep(0.5)
