"""Celery's worker as a role's service: the differences from the standard worker.

`make_celery` names the consumer and the pool by import path, because Sentry must patch Celery
before `celery.worker.consumer` is imported. The worker's main thread runs the event loop. Only this
thread reads from the broker and writes to it, including acknowledgements. Handlers run in the
pool's threads.
"""

from __future__ import annotations

import json
import queue as queues
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import structlog
from amqp.exceptions import AMQPError, RecoverableConnectionError
from celery import bootsteps
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import EX_OK
from celery.utils.threads import bound_open_broker_sockets
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu.asynchronous import Hub
from kombu.message import Message

from proofloop.bus import celery_control
from proofloop.bus.base import BusState
from proofloop.bus.broker_connection import FIRST_PAUSE_S, LONGEST_PAUSE_S, STALLED_S
from proofloop.bus.celery_bus import CeleryBus, EventTask, raw
from proofloop.bus.task_message import RAW, UNKNOWN_TASK, count_headers, event_of, is_event_task
from proofloop.errors import ConfigError, ProofloopError
from proofloop.schema.events import encode, read_event

log = structlog.get_logger()

BEAT_S = 0.2
"""How often the loop shows that it runs and checks whether to stop."""

ANSWER_S, GOODBYE_S = 2.0, 0.5
"""A stopping worker's timeout for each answer of a silent broker: before and after its handlers
end.
"""

SWITCH_S = 0.05
"""How long a thread may hold the GIL while others wait for it. Python's default is 0.005.

Each waiting thread wakes up once in this time: with the default, a worker of 1,250 threads spent
half of its CPU time on that.
"""

NO_ARGUMENTS: tuple[list[object], dict[str, object], dict[str, object]] = [], {}, {}
"""A decoded body: positional arguments, keyword arguments, Celery's canvas."""

NOTHING = b"[[], {}, {}]"
"""The same as an encoded body."""

Tasks = queues.SimpleQueue[tuple[Callable[..., Any], Any, Any, Any] | None]


class EventConsumer(Consumer):  # type: ignore[misc]
    """Consumes one role's queue. The role receives every message, even one that Celery cannot
    read.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """Without `DelayedDelivery`, which would declare 28 queues: retries wait in `.later`."""

        default_steps: ClassVar = [
            step
            for step in Consumer.Blueprint.default_steps
            if not step.endswith(":DelayedDelivery")
        ]

    def __init__(
        self, *arguments: Any, worker_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        # workers do not need to know each other
        alone = {"without_mingle": True, "without_gossip": True}
        super().__init__(*arguments, worker_options={**(worker_options or {}), **alone}, **options)
        # It warns that running calls survive a lost connection, which is intended. Celery's logging
        # shows all of its warnings, so this follows it.
        warnings.simplefilter("ignore", CPendingDeprecationWarning)
        celery_control.install()
        self.beat_s = time.monotonic()
        self.is_consuming = False
        self._late = 0
        self._swallowed: AMQPError | None = None

    @property
    def bus(self) -> CeleryBus:
        bus: CeleryBus = self.app.bus
        return bus

    def beat(self) -> None:
        """Show that the loop runs. Raises a channel error that Celery swallowed, to make Celery
        reconnect.
        """
        self.beat_s = time.monotonic()
        if self._swallowed is not None:
            raise RecoverableConnectionError(str(self._swallowed))

    def on_ready(self) -> None:
        self.is_consuming, self._late, self._swallowed = True, 0, None
        self.connection.drain_events = self._first_read
        super().on_ready()

    def _first_read(self, **options: Any) -> Any:
        """Keep an error of Celery's first read for `beat`. Celery swallows it, and py-amqp reopens
        the channel without its consumers: the worker would wait for ever.
        """
        try:
            return type(self.connection).drain_events(self.connection, **options)
        except AMQPError as error:
            self._swallowed = error
            raise

    def ensure_connected(self, connection: Any) -> Any:
        """Wait for the broker with backoff and jitter."""

        def tell(error: Exception, pause_s: float) -> None:
            log.warning(
                "broker_unavailable",
                broker=connection.host,
                reason=str(error),
                retry_in_s=round(pause_s, 1),
            )

        def look() -> None:
            self.beat()
            state.maybe_shutdown()

        pauses = {
            "interval_start": random.uniform(0.5, 1.0) * FIRST_PAUSE_S,
            "interval_step": random.uniform(0.5, 1.0),
            "interval_max": random.uniform(0.5, 1.0) * LONGEST_PAUSE_S,
        }
        return connection.ensure_connection(tell, None, callback=look, **pauses)

    def on_connection_error_after_connected(self, error: Exception) -> None:
        """Count the loss if handlers run: the broker delivers their messages again."""
        self.is_consuming, self._swallowed = False, None
        self.bus.lost_connections += bool(self.pool.busy)
        log.warning(
            "broker_lost", reason=str(error) or type(error).__name__, running=self.pool.busy
        )
        super().on_connection_error_after_connected(error)

    def call_soon_ack(self, settle: Callable[..., None], *arguments: Any, **options: Any) -> Any:
        """Settle in the loop's thread, unless the connection of the message is lost."""
        return super().call_soon_ack(self._settle, settle, *arguments)

    def _settle(self, settle: Any, *arguments: Any) -> None:
        if settle.__self__.channel.is_open:
            settle(*arguments)
            return
        self._late += 1
        if self._late == 1:  # log once per connection, not once per message
            log.info(
                "acknowledgement_too_late",
                reason="the connection was lost; the broker delivers again",
            )

    def update_strategies(self) -> None:
        super().update_strategies()
        for name in [
            name for name in self.strategies if not isinstance(self.app.tasks[name], EventTask)
        ]:
            del self.strategies[name]  # Celery's own tasks are not events

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Message], None]:
        receive = super().create_task_handler(*arguments, **options)

        def receive_anything(message: Message) -> None:
            if is_event_task(raw(message)):  # do not decode the event here: the role decodes it
                message._decoded_cache = NO_ARGUMENTS
            try:
                receive(message)
            except self.connection_errors:
                raise
            except Exception as error:  # for example a payload that is a number
                log.warning("message_not_a_task", reason=repr(error))
                self._deliver_raw(message)

        return receive_anything

    def on_decode_error(self, message: Message, error: Exception) -> None:
        self._deliver_raw(message)

    def on_unknown_message(self, body: object, message: Message) -> None:
        self._deliver_raw(message)

    def on_unknown_task(self, body: object, message: Message, error: Exception) -> None:
        self._deliver_raw(message)

    def on_invalid_task(self, body: object, message: Message, error: Exception) -> None:
        self._deliver_raw(message)

    def _deliver_raw(self, message: Message) -> None:
        """Pass the message to the role as a task without arguments.

        The role handles a bare event; anything else becomes a dead letter with its reason.
        """
        if RAW in message.__dict__:  # a bug of this bus; the broker makes it a dead letter
            message.reject()
            return
        message.__dict__[RAW] = message.body
        id = message.properties.get("message_id") or message.delivery_tag
        message.headers = {**count_headers(message.headers), "task": UNKNOWN_TASK, "id": str(id)}
        message.body = NOTHING
        message.content_type = "application/json"
        message.content_encoding = "utf-8"
        message.errors, message._decoded_cache = [], None
        self.task_consumer.on_message(message)


class EventRequest(Request):  # type: ignore[misc]
    """An event in Celery. It is never skipped, because its run waits for it."""

    def __init__(self, message: Message, **options: Any) -> None:
        super().__init__(message, **options)
        self._request_dict["taken"] = message
        self._body = NOTHING  # do not decode the arguments again: the task reads the message
        self._content_type, self._content_encoding = "application/json", "utf-8"

    def revoked(self) -> bool:
        """Always false: Celery would acknowledge a revoked or expired event."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:
        """The fields that `inspect` shows, with the decoded event."""
        fields: dict[str, Any] = super().info(safe)
        event = None if safe else read_event(event_of(raw(self.message)))
        return fields | {"args": [json.loads(encode(event))]} if event else fields

    def cancel(self, pool: HandlerThreads, *_: object, **__: object) -> None:
        """Called at a cold shutdown (SIGQUIT, or Ctrl-C twice): the handlers requeue their
        messages.
        """
        pool.app.service.cancelling.set()


class HandlerThreads(BasePool):  # type: ignore[misc]
    """One thread per concurrent message. There are many, because they mostly wait for engines."""

    signal_safe = False
    body_can_be_buffer = True

    def on_start(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._lock, self.busy = threading.Lock(), 0
        self._threads: list[threading.Thread] = []
        self._tasks = self._begin("handler", self.limit)

    def on_apply(self, target: Any, args: Any, kwargs: Any, **options: Any) -> None:
        self._count(1)
        self._tasks.put((target, args, options["callback"], options["accept_callback"]))

    def on_stop(self) -> None:
        """End the idle threads. `ServiceStep` has waited for the busy ones."""
        for _ in self._threads:
            self._tasks.put(None)

    on_terminate = on_stop

    @property
    def ended(self) -> str:
        """The name of a thread that ended because of a bug; empty if all threads run."""
        return next((thread.name for thread in self._threads if not thread.is_alive()), "")

    def _begin(self, name: str, count: int) -> Tasks:
        """Start threads that share one queue of tasks."""
        tasks: Tasks = queues.SimpleQueue()
        for number in range(count):
            thread = threading.Thread(
                target=self._work, args=(tasks,), name=f"{name}-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        return tasks

    def _work(self, tasks: Tasks) -> None:
        while (task := tasks.get()) is not None:
            target, args, callback, accept_callback = task
            try:
                apply_target(target, args, callback=callback, accept_callback=accept_callback)
            finally:
                self._count(-1)
            # an idle thread must not keep the body, which may be large
            del task, args, callback, accept_callback

    def _count(self, change: int) -> None:
        with self._lock:
            self.busy += change


class ServiceStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Opens the role's service before the worker consumes. On stop it waits for running handlers,
    then closes the service.
    """

    requires = ("celery.worker.components:Pool",)
    _hub: Hub | None = None

    def create(self, worker: WorkController) -> None:
        """Open the service. Raises SystemExit with the error's text for a ProofloopError."""
        try:
            role = _role_of(worker)
            self.service = worker.app.service = worker.app.open_service(
                worker.app, role, worker.concurrency
            )
        except ProofloopError as error:
            raise SystemExit(f"error: {error}") from error
        worker.app.bus = self.service.bus

    def start(self, worker: WorkController) -> None:
        worker.app.bus.consumer_state = lambda: _consumer_state(worker)
        ready = worker.consumer.init_callback

        def tell(consumer: EventConsumer) -> None:
            ready(consumer)
            self.service.ready()

        worker.consumer.init_callback = tell

    def register_with_event_loop(self, worker: WorkController, hub: Hub) -> None:
        self._hub = hub  # `get_event_loop()` gives None after a reconnect
        hub.timer.call_repeatedly(BEAT_S, self._beat, (worker,))

    def close(self, worker: WorkController) -> None:
        """Start to stop: accept no new messages."""
        self.service.bus.stopping.set()
        self.service.stopping.set()
        _limit_waits(worker.consumer, ANSWER_S)

    def stop(self, worker: WorkController) -> None:
        """Cancel the running calls after `drain_s`. Celery stopped consuming before this step:
        otherwise a returned message would come to this worker again and count as lost.
        """
        timer = threading.Timer(self.service.drain_s, self.service.cancelling.set)
        timer.daemon = True
        timer.start()
        self._end(worker, self.service.drain_s + self.service.grace_s)

    def terminate(self, worker: WorkController) -> None:
        self.service.cancelling.set()
        self._end(worker, self.service.grace_s)

    def _end(self, worker: WorkController, limit_s: float) -> None:
        self._drain(worker.pool, limit_s)
        _limit_waits(worker.consumer, GOODBYE_S)
        self.service.close()

    def _beat(self, worker: WorkController) -> None:
        worker.consumer.beat()
        if self.service.stopping.is_set():
            state.should_stop = EX_OK

    def _drain(self, pool: HandlerThreads, limit_s: float) -> None:
        """Wait for the handlers and run the loop meanwhile: it acknowledges messages and sends
        heartbeats.
        """
        deadline, turns = time.monotonic() + limit_s, _turns(self._hub, pool.app.bus)
        while pool.busy and time.monotonic() < deadline:
            next(turns)
        next(turns)  # acknowledges the last ones
        if pool.busy:
            log.warning(
                "handlers_abandoned",
                running=pool.busy,
                reason="they did not end in time; the broker delivers their messages again",
            )


def _limit_waits(consumer: EventConsumer, limit_s: float) -> None:
    """Set a timeout on the broker's sockets: a frozen broker would block the shutdown for ever."""
    dispatcher = consumer.event_dispatcher
    for connection in (consumer.connection, dispatcher and dispatcher.connection):
        if connection:
            bound_open_broker_sockets(connection, limit_s)


def _role_of(worker: WorkController) -> str:
    """The role that the worker serves. Raises ConfigError unless there is exactly one."""
    app = worker.app
    names: dict[str, str] = {
        queue.name: queue.name.rpartition(".")[2] for queue in app.conf.task_queues
    }
    wanted = [names[name] for name in app.amqp.queues.consume_from if name in names]
    if len(wanted) != 1:
        raise ConfigError(
            "a worker process serves one role", f"add -Q with one of {', '.join(names)}"
        )
    if not issubclass(worker.pool_cls, HandlerThreads):
        raise ConfigError("a proofloop worker needs its own thread pool", "remove -P / --pool")
    return wanted[0]


def _consumer_state(worker: WorkController) -> BusState:
    """Whether the worker delivers messages. Safe to call from other threads."""
    consumer, pool = worker.consumer, worker.pool
    silent_s = time.monotonic() - consumer.beat_s
    if silent_s > STALLED_S:
        return BusState(broken=f"the worker's event loop has been stuck for {silent_s:.0f} s")
    if pool.ended and not consumer.bus.stopping.is_set():
        return BusState(broken=f"the thread {pool.ended} ended")
    if not consumer.is_consuming:
        return BusState(unavailable="the worker does not consume: the broker is unavailable")
    if not consumer.app.amqp.queues.consume_from:
        return BusState(
            unavailable="the worker does not consume: `celery control cancel_consumer` was called"
        )
    return BusState()


def _turns(hub: Hub | None, bus: CeleryBus) -> Iterator[None]:
    """Run the loop for at most `BEAT_S` per step. Without a connection a step only waits."""
    loop = hub.create_loop() if hub else None
    while hub and loop:
        try:
            next(loop)
        except StopIteration:
            loop = hub.create_loop()
        except (AMQPError, OSError) as error:
            bus.lost_connections += 1
            log.warning("broker_lost", reason=str(error) or type(error).__name__)
            break
        yield
    while True:
        time.sleep(BEAT_S)
        yield
