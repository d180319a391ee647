"""Celery's worker in a thread of this process, for tests of the bus whose handlers are functions of
the test.

A service serves one role from its main thread; here one worker serves all queues of a test, each
with its own threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from celery.app import trace
from celery.worker import WorkController, state
from kombu.asynchronous import set_event_loop
from kombu.message import Message

from proofloop.bus import Delivery, Outcome
from proofloop.bus.celery_bus import CeleryBus, ServedQueue, make_celery
from proofloop.bus.celery_worker import HandlerThreads, ServiceStep, Tasks
from proofloop.bus.task_message import UNKNOWN_TASK
from proofloop.schema.events import Event

START_S = 60.0


class RoleThreads(HandlerThreads):
    """Threads for each queue."""

    def on_start(self) -> None:
        super().on_start()
        bus: EmbeddedBus = self.app.bus
        self._of_queue: dict[str, Tasks] = {
            served.role: self._begin(served.role, threads)
            for served, threads in bus.queues.values()
        }

    def on_apply(self, target: Any, args: Any, kwargs: Any, **options: Any) -> None:
        self._tasks = self._of_queue[self.app.bus.served_by(args[2]["taken"]).role]
        super().on_apply(target, args, kwargs, **options)

    def on_stop(self) -> None:
        for tasks in self._of_queue.values():
            self._tasks = tasks
            super().on_stop()


class EmbeddedStep(ServiceStep):
    """The bus is there already, and any number of roles."""

    def create(self, worker: WorkController) -> None:
        self.service = worker.app.service = EmbeddedService(worker.app.bus)


class EmbeddedService:
    """What the worker asks of the process around it."""

    drain_s = 0.0

    def __init__(self, bus: EmbeddedBus) -> None:
        self.bus, self.grace_s = bus, bus.grace_s
        self.stopping, self.cancelling = threading.Event(), threading.Event()

    def ready(self) -> None:
        self.bus.is_ready.set()

    def close(self) -> None:
        """The test closes the bus."""


class EmbeddedBus(CeleryBus):
    """A bus with the worker that delivers its messages; the worker starts with the first
    `publish`.
    """

    grace_s = 5.0

    def __init__(self, url: str, **options: Any) -> None:
        app = make_celery(url, options["namespace"], open_service=None, worker_pool=RoleThreads)  # type: ignore[arg-type]
        super().__init__(url, app=app, **options)
        app.bus = self
        app.steps["worker"] = {EmbeddedStep}
        self.queues: dict[str, tuple[ServedQueue, int]] = {}
        self.is_ready, self._starting = threading.Event(), threading.Lock()
        self.worker: WorkController | None = None

    def serve(
        self,
        queue: str,
        topics: Iterable[str],
        process: Callable[[Delivery], Outcome],
        *,
        concurrency: int,
    ) -> None:
        self._routes[queue] = tuple(topics)
        self._declare()
        self.queues[f"{self.topology.namespace}.{queue}"] = ServedQueue(queue, process), concurrency
        self.register({*topics, UNKNOWN_TASK} - {*self.app.tasks})

    def served_by(self, message: Message) -> ServedQueue:
        """By the queue that the message came from: two queues of a test may have one routing
        key.
        """
        assert self.worker is not None
        tags = self.worker.consumer.task_consumer._active_tags
        name = next(
            name for name, tag in tags.items() if tag == message.delivery_info["consumer_tag"]
        )
        return self.queues[name][0]

    def publish(self, events: Iterable[Event]) -> None:
        with self._starting:  # a test may publish from several threads
            self.start()
        super().publish(events)

    def start(self) -> None:
        """Start the worker, unless it runs, and wait until it consumes."""
        if self.worker is not None or not self.queues:
            return
        state.should_stop = state.should_terminate = None
        state.reset_state()
        set_event_loop(None)
        self.app.conf.task_queues = [
            self.topology.queue(served.role) for served, _ in self.queues.values()
        ]
        self.app.conf.worker_prefetch_multiplier = max(
            threads for _, threads in self.queues.values()
        )
        self.worker = self.app.WorkController(
            hostname="worker@test", concurrency=1, queues=list(self.queues)
        )
        trace.setup_worker_optimizations(self.app, "worker@test")
        self._thread = threading.Thread(target=self.worker.start, daemon=True)
        self._thread.start()
        assert self.is_ready.wait(START_S)

    @property
    def unsettled(self) -> int:
        """Deliveries that are in this process now."""
        return self.worker.pool.busy if self.worker else 0

    def close(self, *, grace_s: float = 5.0) -> None:
        if self.worker is not None:
            self.app.service.grace_s = grace_s
            state.should_stop = 0
            self._thread.join(grace_s + START_S)
            trace.reset_worker_optimizations(self.app)
        super().close()
