"""The bus on RabbitMQ: one connection that publishes, one a queue that consumes, a pool of threads that handles.

A delivery is settled in one of three ways, each safe at any moment of a crash:
ack     acknowledged, on the connection it came by;
again   a copy goes to the end of the same queue, or first to the queue of those that wait, confirmed; then the
        original is acknowledged. Used for `requeue` and `failed`: a negative acknowledgement would count a mere wait
        against the delivery limit, would come back at once and to the front, and counts differently from one
        RabbitMQ to the next; a message that waits in this process would hold a place. The copy carries its own
        count of failures;
dead    a copy with the reason goes to the dead-letter exchange, confirmed, then the original is acknowledged.
The broker's own delivery limit is for messages whose worker dies with them. A connection that is lost takes its
deliveries with it: the broker hands them out again, and what a handler still finishes is stored and found by the next.
"""

from __future__ import annotations

import math
import queue as queues
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
from pika import BasicProperties, DeliveryMode, URLParameters
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic

from proofloop.bus.base import DELIVERY_LIMIT, BusState, Delivery, Outcome
from proofloop.bus.link import Link, connect, parse_url
from proofloop.bus.publisher import Message, Publisher
from proofloop.bus.topology import ROUTES, Topology
from proofloop.errors import BusError
from proofloop.messages import MAX_BODY_BYTES, Event, encode

log = structlog.get_logger()

FAILURES, REASON, DELIVERIES = "x-proofloop-failures", "x-proofloop-reason", "x-proofloop-deliveries"
"""Our headers: how often a message failed; why it is dead and after how many deliveries."""

PUBLISHED = "x-proofloop-published-ms"
"""Since when a message could be delivered: milliseconds of Unix time. Older messages do not have it."""

PUBLISH_S = 30.0
"""How long `publish` waits for the confirms, a short absence of the broker included."""


class RabbitBus:
    """The bus seam on a RabbitMQ broker, 3.10 or newer."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "proofloop",
        roles: Iterable[str] = (),
        prefetch: int | None = None,
        connect_s: float = 15.0,
    ) -> None:
        """Declare what is missing and connect. Raises ConfigError, BusError.

        `roles`: whose queues must be there, besides those served. `prefetch`: deliveries that wait in this process for
        each queue served; as many as threads unless it is given. `connect_s`: how long to try to reach the broker.
        """
        self._parameters = parse_url(url)
        self._topology = Topology(namespace)
        self._routes: dict[str, tuple[str, ...]] = {role: ROUTES[role] for role in roles}
        self._prefetch = prefetch
        self._consumers: list[_Consumer] = []
        self._declare_patiently(connect_s)
        self._publisher = Publisher(self._parameters, self._declare)

    def publish(self, events: Iterable[Event]) -> None:
        self._send([self._message(event) for event in events])

    def serve(
        self, queue: str, topics: Iterable[str], process: Callable[[Delivery], Outcome], *, concurrency: int
    ) -> None:
        self._routes[queue] = tuple(topics)
        self._declare()
        self._consumers.append(
            _Consumer(
                self._parameters,
                self._topology,
                queue,
                process,
                self._send,
                prepare=self._declare,
                concurrency=concurrency,
                prefetch=self._prefetch or concurrency,
            )
        )

    def state(self) -> BusState:
        broken = [*(consumer.broken for consumer in self._consumers), self._publisher.broken]
        away = (consumer.away for consumer in self._consumers)
        return BusState(next(filter(None, broken), ""), next(filter(None, away), ""))

    def losses(self) -> int:
        return sum(consumer.losses for consumer in self._consumers)

    @property
    def unsettled(self) -> int:
        """Deliveries that are in this process now."""
        return sum(consumer.unsettled for consumer in self._consumers)

    def close(self, *, grace_s: float = 5.0) -> None:
        deadline = time.monotonic() + grace_s
        for consumer in self._consumers:
            consumer.stop()
        for consumer in self._consumers:
            consumer.join(deadline)
        self._publisher.close()

    def _send(self, messages: list[Message]) -> None:
        if messages:
            self._publisher.publish(messages, timeout_s=PUBLISH_S)

    def _message(self, event: Event) -> Message:
        body = encode(event)
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"{event.id}: {len(body)} bytes; an event has at most {MAX_BODY_BYTES}")
        must_arrive = any(event.routing_key in topics for topics in self._routes.values())
        properties = properties_of(type=event.name, message_id=event.id, headers={PUBLISHED: _now_ms()})
        return Message(self._topology.exchange, event.routing_key, body, properties, must_arrive)

    def _declare(self) -> None:
        connection = connect(self._parameters)
        try:
            self._topology.declare(connection.channel(), dict(self._routes))
        finally:
            if connection.is_open:
                connection.close()

    def _declare_patiently(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                return self._declare()
            except BusError as error:
                if time.monotonic() > deadline:
                    raise
                log.info("broker_awaited", reason=str(error))
                time.sleep(0.5)


@dataclass(frozen=True)
class _Taken:
    """A delivery in this process; only the channel it came by can acknowledge it."""

    channel: Channel
    tag: int
    body: bytes
    properties: BasicProperties
    redelivered: bool

    @property
    def attempt(self) -> int:
        """Deliveries so far that came to nothing, and this one."""
        headers: Mapping[str, int] = self.properties.headers or {}
        return headers.get(FAILURES, 0) + headers.get("x-delivery-count", 0) + 1

    @property
    def published_s(self) -> float | None:
        published_ms = (self.properties.headers or {}).get(PUBLISHED)
        return published_ms / 1000 if isinstance(published_ms, int) else None


class _Consumer:
    """One queue's deliveries, handed to a pool of threads; answers go back to the connection's own thread."""

    def __init__(
        self,
        parameters: URLParameters,
        topology: Topology,
        role: str,
        process: Callable[[Delivery], Outcome],
        send: Callable[[list[Message]], None],
        *,
        prepare: Callable[[], None],
        concurrency: int,
        prefetch: int,
    ) -> None:
        self._topology, self._role, self._process, self._send = topology, role, process, send
        self._prefetch = prefetch
        self._tag = ""
        self._channel: Channel | None = None
        self._consuming = False
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.unsettled = 0
        """Deliveries taken and not settled yet."""
        self.losses = 0
        """How often the connection was lost while there were such deliveries."""
        self._waiting: queues.SimpleQueue[_Taken | None] = queues.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{role}-{number}", daemon=True) for number in range(concurrency)
        ]
        for thread in self._threads:
            thread.start()
        self._link = Link(role, parameters, prepare=prepare, opened=self._opened, lost=self._lost)

    @property
    def broken(self) -> str:
        """Why only a restart makes this queue's deliveries go on; empty if nothing is wrong."""
        ended = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"the thread {ended[0]} ended" if ended and not self._stopping.is_set() else self._link.problem

    @property
    def away(self) -> str:
        """Why nothing is delivered now; empty while the broker has this consumer."""
        return "" if self._consuming else f"the queue of {self._role} is not consumed: the broker is away"

    def stop(self) -> None:
        """Take nothing new; what was taken and not begun goes back."""
        self._stopping.set()
        self._link.call(self._cancel)
        for _ in self._threads:
            self._waiting.put(None)

    def join(self, deadline: float) -> None:
        """Wait for what runs, then close: what is not acknowledged by then is delivered again."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._link.close()

    def _opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_cancel_callback(lambda _: self._link.reopen(f"the queue of {self._role} is gone"))
        channel.basic_qos(prefetch_count=self._prefetch, callback=self._consume)

    def _consume(self, _: Method[Basic.QosOk]) -> None:
        if self._channel is not None and not self._stopping.is_set():
            queue = self._topology.queue(self._role)
            self._tag = self._channel.basic_consume(queue, self._take, callback=self._consumes)

    def _consumes(self, _: Method[Basic.ConsumeOk]) -> None:
        self._consuming = True

    def _lost(self) -> None:
        if self._consuming and self.unsettled:
            self.losses += 1
        self._consuming = False

    def _cancel(self) -> None:
        if self._tag and self._channel is not None and self._channel.is_open:
            self._channel.basic_cancel(self._tag)

    def _take(self, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._count(1)
        self._waiting.put(_Taken(channel, method.delivery_tag, body, properties, method.redelivered))

    def _count(self, change: int) -> None:
        with self._lock:
            self.unsettled += change

    def _work(self) -> None:
        while (taken := self._waiting.get()) is not None:
            if taken.channel.is_open:  # otherwise it is delivered again, here or elsewhere
                self._settle(taken, self._outcome(taken))
            self._count(-1)
            del taken  # an idle thread would keep the body, which may be as large as the broker takes

    def _outcome(self, taken: _Taken) -> Outcome:
        if self._stopping.is_set():
            return Outcome("requeue", "the process is stopping")
        try:
            return self._process(Delivery(taken.body, taken.attempt, taken.published_s, taken.redelivered))
        except Exception as error:  # a thread that dies here would take its message and its place with it
            log.exception("delivery_failed", queue=self._role)
            return Outcome("failed", f"{type(error).__name__}: {error}")

    def _settle(self, taken: _Taken, outcome: Outcome) -> None:
        match outcome.kind:
            case "requeue":
                after_s = 0.0 if self._stopping.is_set() else outcome.after_s
                self._replace(taken, self._copy(taken, failures=taken.attempt - 1, after_s=after_s))
            case "failed" if taken.attempt < DELIVERY_LIMIT:
                self._replace(taken, self._copy(taken, failures=taken.attempt))
            case "failed" | "dead":
                self._replace(taken, self._dead(taken, outcome.reason))
            case "ack":
                self._acknowledge(taken)

    def _replace(self, taken: _Taken, message: Message) -> None:
        """Publish, then acknowledge; while the broker is away, wait for it, unless it took the delivery back."""
        while taken.channel.is_open:
            try:
                self._send([message])
                return self._acknowledge(taken)
            except BusError as error:
                log.warning("delivery_unsettled", queue=self._role, reason=str(error))
                if self._stopping.is_set():
                    return

    def _acknowledge(self, taken: _Taken) -> None:
        def acknowledge() -> None:
            if taken.channel.is_open:
                taken.channel.basic_ack(taken.tag)

        self._link.call(acknowledge)

    def _copy(self, taken: _Taken, *, failures: int, after_s: float = 0.0) -> Message:
        queue = self._topology.later_queue(self._role) if after_s > 0 else self._topology.queue(self._role)
        properties = properties_of(
            type=taken.properties.type,
            message_id=taken.properties.message_id,
            headers={FAILURES: failures, PUBLISHED: _now_ms() + math.ceil(1000 * after_s)},
        )
        if after_s > 0:
            properties.expiration = str(math.ceil(1000 * after_s))
        return Message("", queue, taken.body, properties, True)

    def _dead(self, taken: _Taken, reason: str) -> Message:
        """No event is longer than the limit, so what is cut off was never one."""
        properties = properties_of(
            type=taken.properties.type,
            message_id=taken.properties.message_id,
            headers={REASON: reason[:2000], DELIVERIES: taken.attempt},
        )
        return Message(self._topology.dead_exchange, self._role, taken.body[:MAX_BODY_BYTES], properties, True)


def _now_ms() -> int:
    return int(1000 * time.time())


def properties_of(
    *, type: str | None, message_id: str | None, headers: Mapping[str, str | int] | None = None
) -> BasicProperties:
    return BasicProperties(  # type: ignore[no-untyped-call]
        content_type="application/json",
        delivery_mode=DeliveryMode.Persistent.value,
        type=type,
        message_id=message_id,
        headers=dict(headers) if headers else None,
    )
