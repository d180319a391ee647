"""The consuming side of the bus: an event is a Celery task, and Celery's worker runs it.

A delivery is settled in one of three ways. Each is safe if the process dies at any moment.

ack    Celery acknowledges the message on its channel (SUCCESS).
retry  The bus publishes a copy to the end of the same queue, or to the queue of delayed messages;
       after the confirm, Celery acknowledges the original (RETRY). The copy carries its own count
       of failures. A negative acknowledgement would count a wait against the delivery limit, would
       return at once to the front of the queue, and counts differently between RabbitMQ versions.
dead   The bus publishes a copy with the reason to the dead-letter exchange; after the confirm,
       Celery acknowledges the original (FAILURE).

The broker's own delivery limit handles messages that kill their worker. After a lost connection the
broker delivers its messages again, and the next handler finds the results that this one stored.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from celery import Celery, Task
from celery.app import trace
from celery.app.control import Control
from celery.exceptions import Reject, Retry
from celery.platforms import SecurityWarning
from kombu import pidbox
from kombu.entity import Queue
from kombu.message import Message as TakenMessage

from proofloop.bus.base import DELIVERY_LIMIT, BusState, Delivery, Outcome
from proofloop.bus.broker_connection import HEARTBEAT_S
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.task_message import (
    DELIVERIES,
    FAILURES,
    PUBLISHED,
    RAW,
    REASON,
    UNKNOWN_TASK,
    copy_of,
    count_headers,
    event_of,
)
from proofloop.bus.topology import ROUTES, Topology
from proofloop.errors import BusError, ConfigError

log = structlog.get_logger()

WARN_EVERY_S = 30.0
"""The least time between two warnings that the broker does not take a worker's messages."""

REASON_CHARACTERS = 2000
"""The longest reason of a dead letter."""

SETTINGS = {
    # the worker continues when the broker closes its channel at consumer_timeout
    "broker_channel_error_retry": True,
    "broker_heartbeat": HEARTBEAT_S,
    "task_acks_late": True,
    # a failed message has a confirmed copy before its task raises
    "task_acks_on_failure_or_timeout": True,
    "task_create_missing_queues": False,
    "task_ignore_result": True,
    "task_reject_on_worker_lost": True,
    "worker_consumer": "proofloop.bus.celery_worker:EventConsumer",
    # RabbitMQ closes connections that ask for a global QoS on a quorum queue
    "worker_detect_quorum_queues": True,
    "worker_disable_rate_limits": True,
    "worker_enable_prefetch_count_reduction": False,
    "worker_hijack_root_logger": False,
    "worker_pool": "proofloop.bus.celery_worker:HandlerThreads",
    "worker_prefetch_multiplier": 1,
    "worker_redirect_stdouts": False,
}


class ControlCommands(Control):  # type: ignore[misc]
    """Celery's `inspect` and `control`, with a new queue for each connection of a worker.

    With a fixed name a worker could not reconnect: an exclusive queue stays locked until the broker
    notices that the old connection is gone, and a durable queue is unavailable while its cluster
    node is down.
    """

    class Mailbox(pidbox.Mailbox):
        def get_queue(self, hostname: str) -> Queue:
            unique = f"{hostname}.{uuid.uuid4().hex[:8]}"
            queue: Queue = super().get_queue(unique)  # type: ignore[no-untyped-call]
            return queue


class Service(Protocol):
    """A role's resources besides Celery, opened before the first delivery and closed after the
    last.
    """

    @property
    def bus(self) -> CeleryBus: ...

    @property
    def stopping(self) -> threading.Event:
        """Set when the process starts to stop. Setting it stops the process."""
        ...

    @property
    def cancelling(self) -> threading.Event:
        """Set to cancel the running calls."""
        ...

    @property
    def drain_s(self) -> float:
        """The seconds for which a stopping process waits before it cancels its running calls."""
        ...

    @property
    def grace_s(self) -> float:
        """The seconds for which it then waits for its handlers."""
        ...

    def ready(self) -> None:
        """Called once, when the worker starts to consume."""

    def close(self) -> None: ...


OpenService = Callable[[Celery, str, int], Service]
"""Opens the service of a role for this many concurrent messages."""


def make_celery(url: str, namespace: str, open_service: OpenService, **settings: Any) -> Celery:
    """A Celery application with the queues of all roles. `CeleryBus.serve` adds a role's tasks."""
    topology = Topology(namespace)
    # it warns of pickle for root; this application accepts only JSON
    warnings.simplefilter("ignore", SecurityWarning)
    app = Celery("proofloop", broker=url, control=ControlCommands, set_as_current=False)
    app.conf.update(
        SETTINGS,
        broker_url=url,
        control_exchange=namespace,
        event_exchange=f"{namespace}.events",
        task_default_exchange=namespace,
        task_default_exchange_type="topic",
        task_default_queue=topology.queue("generator").name,
        task_queues=[topology.queue(role, topics) for role, topics in ROUTES.items()],
        **settings,
    )
    app.open_service = open_service
    app.steps["worker"].add("proofloop.bus.celery_worker:ServiceStep")
    return app


class Refused(Exception):
    """The role rejected its message, which is now a dead letter."""


class Failed(Exception):
    """The message reached the limit of failures and is now a dead letter."""


class Redelivered(Reject):  # type: ignore[misc]
    """The connection of the message is lost: the broker delivers it again."""


def is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether Celery should log the end of a task. `broker_lost` is logged once per connection, so
    its messages need no tracebacks.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], Redelivered))


logging.getLogger(trace.__name__).addFilter(is_worth_logging)


class EventTask(Task):  # type: ignore[misc]
    """Handles one event in the role that serves its queue. Its exceptions make Celery report RETRY
    or FAILURE.
    """

    Request = "proofloop.bus.celery_worker:EventRequest"
    throws = (Refused,)
    typing = False

    def __init__(self, name: str, bus: CeleryBus) -> None:
        self.name, self.bus = name, bus

    def run(self, *event: object, **_: object) -> None:
        self.bus.handle(self.request.taken)


@dataclass(frozen=True)
class ServedQueue:
    """A queue that this process serves: its role and its handler."""

    role: str
    process: Callable[[Delivery], Outcome]


class CeleryBus(RabbitBus):
    """The bus of a worker process. The Celery worker of `app` delivers the messages of one role."""

    def __init__(
        self, url: str, *, app: Celery, namespace: str = "proofloop", **options: Any
    ) -> None:
        """Declare missing queues and connect. Raises ConfigError, BusError."""
        super().__init__(url, namespace=namespace, **options)
        self.app = app
        self.stopping = threading.Event()
        self.consumer_state: Callable[[], BusState] = lambda: BusState(
            unavailable="the worker starts"
        )
        self.lost_connections = 0
        self._next_warning_s = 0.0
        self._served: ServedQueue | None = None

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        """Register the role's tasks. The worker delivers after its start, in its own threads."""
        if self._served is not None:
            raise ConfigError(
                f"this process already serves {self._served.role}", "start a process for each role"
            )
        self._served = ServedQueue(queue, process)
        self.register((*topics, UNKNOWN_TASK))

    @property
    def queue_name(self) -> str:
        """The queue that this process serves."""
        assert self._served is not None
        return str(self.topology.queue(self._served.role).name)

    def register(self, names: Iterable[str]) -> None:
        """Register these tasks with Celery."""
        for name in names:
            self.app.register_task(EventTask(name, self))

    def state(self) -> BusState:
        consuming = self.consumer_state()
        return BusState(
            broken=consuming.broken or super().state().broken, unavailable=consuming.unavailable
        )

    def losses(self) -> int:
        return self.lost_connections

    def handle(self, message: TakenMessage) -> None:
        """Handle and settle one delivery. Then raise Retry, Refused or Failed, except after an
        ack.
        """
        role, attempt, outcome = self._processed(message)
        try:
            self._settle(role, message, attempt, outcome)
        finally:
            # the error's traceback keeps the message, and its body may be large
            message.__dict__[RAW] = b""

    def _processed(self, message: TakenMessage) -> tuple[str, int, Outcome]:
        """The role that handled the delivery, the number of the attempt, and the outcome."""
        served, delivery = self.served_by(message), _delivery(message)
        return served.role, delivery.attempt, self._outcome(served, delivery)

    def served_by(self, message: TakenMessage) -> ServedQueue:
        """The served queue of the message. A process serves one queue."""
        assert self._served is not None
        return self._served

    def _outcome(self, served: ServedQueue, delivery: Delivery) -> Outcome:
        if self.stopping.is_set():
            return Outcome("requeue", "the process is stopping")
        try:
            return served.process(delivery)
        except BaseException as error:  # every message must be settled
            log.exception("delivery_failed", queue=served.role)
            return Outcome("failed", f"{type(error).__name__}: {error}", error=error)

    def _settle(self, role: str, message: TakenMessage, attempt: int, outcome: Outcome) -> None:
        """Publish a copy if the outcome needs one, then raise Retry, Refused or Failed."""
        queue = self.topology.queue(role).name
        match outcome.kind:
            case "requeue":
                after_s = 0.0 if self.stopping.is_set() else outcome.after_s
                queue = self.topology.later_queue(role).name if after_s > 0 else queue
                self._replace(message, "", queue, {FAILURES: attempt - 1}, after_s)
                raise Retry(outcome.reason, when=after_s)
            case "failed" if attempt < DELIVERY_LIMIT:
                self._replace(message, "", queue, {FAILURES: attempt})
                raise Retry(outcome.reason, exc=outcome.error, when=0)
            case "failed" | "dead":
                about: dict[str, str | int] = {
                    REASON: outcome.reason[:REASON_CHARACTERS],
                    DELIVERIES: attempt,
                }
                self._replace(message, self.topology.dead_exchange.name, role, about)
                raise (Refused if outcome.kind == "dead" else Failed)(
                    outcome.reason
                ) from outcome.error

    def _replace(
        self,
        message: TakenMessage,
        exchange: str,
        key: str,
        about: dict[str, str | int],
        after_s: float = 0.0,
    ) -> None:
        """Publish a copy, and wait for an unavailable broker. Raises Redelivered if the channel
        closed.
        """
        copy = copy_of(exchange, key, message.headers, raw(message), about, after_s)
        while message.channel.is_open:
            try:
                return self.send([copy])
            except BusError as error:
                self._warn_of_unsettled(error)
                if self.stopping.is_set():
                    break
        raise Redelivered("the broker delivers the message again", requeue=True)

    def _warn_of_unsettled(self, error: BusError) -> None:
        """Warn at most twice a minute, not once per message and attempt."""
        now_s = time.monotonic()
        if now_s >= self._next_warning_s:
            self._next_warning_s = now_s + WARN_EVERY_S
            log.warning("delivery_unsettled", reason=str(error))


def _delivery(message: TakenMessage) -> Delivery:
    """The delivery for the role. Its attempt counts the failed deliveries and this one."""
    counted = count_headers(message.headers)
    died = counted.get("x-delivery-count", 0)
    return Delivery(
        body=event_of(raw(message)),
        attempt=counted.get(FAILURES, 0) + died + 1,
        published_s=counted[PUBLISHED] / 1000 if PUBLISHED in counted else None,
        redelivered=bool(died or message.delivery_info.get("redelivered")),
    )


def raw(message: TakenMessage) -> bytes:
    """The body as received from the broker."""
    body = message.__dict__.get(RAW, message.body)
    return body.encode() if isinstance(body, str) else bytes(body)
