"""The consuming side of the bus: an event is a Celery task, and Celery's worker runs it.

A delivery is settled in one of three ways, each safe at any moment of a crash: ack     Celery
acknowledges it, on the channel it came by (SUCCESS); again   a copy goes to the end of the same
queue, or first to the queue of messages that wait, confirmed; then Celery
        acknowledges the original (RETRY). A negative acknowledgement would count a mere wait
        against the delivery
        limit, would come back at once and to the front, and counts differently from one RabbitMQ to
        the next. The
        copy carries its own count of failures; dead    a copy with the reason goes to the
        dead-letter exchange, confirmed, then Celery acknowledges (FAILURE). The broker's own
        delivery limit is for messages whose worker dies with them. A lost connection takes its
        deliveries with it: the broker delivers them again, and the next handler finds what this one
        still stores.
"""

from __future__ import annotations

import threading
import uuid
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from celery import Celery, Task
from celery.app.control import Control
from celery.exceptions import CPendingDeprecationWarning, Reject, Retry
from celery.platforms import SecurityWarning
from kombu import pidbox
from kombu.entity import Queue
from kombu.message import Message as TakenMessage

from proofloop.bus.base import DELIVERY_LIMIT, BusState, Delivery, Outcome
from proofloop.bus.link import HEARTBEAT_S
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.task_message import (
    AS_IT_CAME,
    DELIVERIES,
    FAILURES,
    PUBLISHED,
    RAW,
    REASON,
    again,
    counts,
    event_of,
)
from proofloop.bus.topology import ROUTES, Topology
from proofloop.errors import BusError, ConfigError

log = structlog.get_logger()

REASON_CHARACTERS = 2000
"""The longest reason that a dead letter carries."""

SETTINGS = {
    # the worker goes on when the broker closes its channel at consumer_timeout
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
    """Celery's `inspect` and `control`, with a queue for each connection of a worker.

    Under one name a worker could not come back: an exclusive queue stays locked until the broker
    notices that the old connection is gone, a durable one is out of reach while its node of a
    cluster is down.
    """

    class Mailbox(pidbox.Mailbox):
        def get_queue(self, hostname: str) -> Queue:
            unique = f"{hostname}.{uuid.uuid4().hex[:8]}"
            queue: Queue = super().get_queue(unique)  # type: ignore[no-untyped-call]
            return queue


class Service(Protocol):
    """What a worker process needs besides Celery: opened before the first delivery, closed after
    the last.
    """

    @property
    def bus(self) -> CeleryBus: ...

    @property
    def stopping(self) -> threading.Event:
        """Set when the process begins to stop; setting it stops the process."""
        ...

    @property
    def cancelling(self) -> threading.Event:
        """Set when running calls are cancelled."""
        ...

    @property
    def drain_s(self) -> float:
        """How long a stopping process lets its calls run before it cancels them."""
        ...

    @property
    def grace_s(self) -> float:
        """How long it waits for its handlers after that."""
        ...

    def ready(self) -> None:
        """Called once, when the worker consumes."""

    def close(self) -> None: ...


OpenService = Callable[[Celery, str, int], Service]
"""Opens the service of a role for so many messages at once."""


def make_celery(url: str, namespace: str, open_service: OpenService, **settings: Any) -> Celery:
    """A Celery application that knows the queues of all roles and no task yet: `CeleryBus.serve`
    adds a role's.
    """
    topology = Topology(namespace)
    warnings.simplefilter(
        "ignore", SecurityWarning
    )  # root must not accept pickle; only JSON is accepted here
    warnings.simplefilter(
        "ignore", CPendingDeprecationWarning
    )  # running calls survive a lost connection on purpose
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
    """The role says that its message can never work: it is a dead letter now."""


class Failed(Exception):
    """The message failed as often as the limit allows: it is a dead letter now."""


class EventTask(Task):  # type: ignore[misc]
    """Runs one event in the role that serves its queue. Raises what makes Celery show RETRY or
    FAILURE.
    """

    Request = "proofloop.bus.celery_worker:EventRequest"
    throws = (Refused,)
    typing = False

    def __init__(self, name: str, bus: CeleryBus) -> None:
        self.name, self.bus = name, bus

    def run(self, *event: object, **_: object) -> None:
        self.bus.handle(self.request.taken)


@dataclass(frozen=True)
class Served:
    """A queue that this process serves: its role, and what handles a delivery."""

    role: str
    process: Callable[[Delivery], Outcome]


class CeleryBus(RabbitBus):
    """The bus of a worker process: one role, delivered by the Celery worker that `app` starts."""

    def __init__(
        self, url: str, *, app: Celery, namespace: str = "proofloop", **options: Any
    ) -> None:
        """Declare what is missing and connect. Raises ConfigError, BusError."""
        super().__init__(url, namespace=namespace, **options)
        self.app = app
        self.stopping = threading.Event()
        self.consumer_state: Callable[[], BusState] = lambda: BusState(away="the worker starts")
        self.lost_connections = 0
        self._served: Served | None = None

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        """Register the role's tasks; the worker delivers from its start on, with threads of its
        own.
        """
        if self._served is not None:
            raise ConfigError(
                f"this process serves {self._served.role} already", "start a process for each role"
            )
        self._served = Served(queue, process)
        self.register((*topics, AS_IT_CAME))

    @property
    def queue_name(self) -> str:
        """The queue that this process serves."""
        assert self._served is not None
        return str(self.topology.queue(self._served.role).name)

    def register(self, names: Iterable[str]) -> None:
        """Make these tasks known to Celery."""
        for name in names:
            self.app.register_task(EventTask(name, self))

    def state(self) -> BusState:
        consuming = self.consumer_state()
        return BusState(broken=consuming.broken or super().state().broken, away=consuming.away)

    def losses(self) -> int:
        return self.lost_connections

    def handle(self, message: TakenMessage) -> None:
        """Handle one delivery and put it where it belongs. Raises Retry, Refused or Failed after
        that.
        """
        role, attempt, outcome = self._processed(message)
        try:
            self._settle(role, message, attempt, outcome)
        finally:
            message.__dict__[RAW] = (
                b""  # the error's traceback keeps the message, whose body may be large
            )

    def _processed(self, message: TakenMessage) -> tuple[str, int, Outcome]:
        """The role that handled the delivery, the attempt that it was, and the outcome."""
        served, delivery = self.served_by(message), _delivery(message)
        return served.role, delivery.attempt, self._outcome(served, delivery)

    def served_by(self, message: TakenMessage) -> Served:
        """What serves the queue that the message came by; a process serves one."""
        assert self._served is not None
        return self._served

    def _outcome(self, served: Served, delivery: Delivery) -> Outcome:
        if self.stopping.is_set():
            return Outcome("requeue", "the process is stopping")
        try:
            return served.process(delivery)
        except BaseException as error:  # whatever a handler does, its message must be settled
            log.exception("delivery_failed", queue=served.role)
            return Outcome("failed", f"{type(error).__name__}: {error}", error=error)

    def _settle(self, role: str, message: TakenMessage, attempt: int, outcome: Outcome) -> None:
        """Raises Retry, Refused or Failed when a copy is where it belongs."""
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
        """Publish a copy; while the broker is away wait for it, unless it took the delivery back.
        Raises Reject.
        """
        copy = again(exchange, key, message.headers, raw(message), about, after_s)
        while message.channel.is_open:
            try:
                return self.send([copy])
            except BusError as error:
                log.warning("delivery_unsettled", reason=str(error))
                if self.stopping.is_set():
                    break
        raise Reject("the broker takes the delivery back", requeue=True)


def _delivery(message: TakenMessage) -> Delivery:
    """What the role gets to see. The attempt counts deliveries that came to nothing, and this
    one.
    """
    counted = counts(message.headers)
    died = counted.get("x-delivery-count", 0)
    return Delivery(
        body=event_of(raw(message)),
        attempt=counted.get(FAILURES, 0) + died + 1,
        published_s=counted[PUBLISHED] / 1000 if PUBLISHED in counted else None,
        redelivered=bool(died or message.delivery_info.get("redelivered")),
    )


def raw(message: TakenMessage) -> bytes:
    """The body as the broker delivered it."""
    body = message.__dict__.get(RAW, message.body)
    return body.encode() if isinstance(body, str) else bytes(body)
