"""The consuming processes that benchmarks/bus.py starts and compares.

Each prints [seconds, CPU seconds] of the first COUNT messages as a line of JSON, then the latencies
of the next PACED. The times run from the first message to the last, without the start of the
worker.

- `ours`, `ours_events`: the worker that `proofloop serve` starts, with a handler that only counts.
- `celery`: a plain Celery task.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import celery
from kombu import Queue

from proofloop.bus import ACK, Delivery, Outcome
from proofloop.schema.events import ReviewJudged, encode

PREFETCH, THREADS = 200, 4
"""The same for all contenders: prefetched messages, and threads that handle them."""

ROLE, TOPIC = "labeler", "ReviewJudged"
PACE_S = 0.005
"""The pause between two messages whose latency is measured."""


class Padded(ReviewJudged):
    """An event of any size: readers ignore the unknown field."""

    padding: str
    sent: float = 0.0

    @property
    def name(self) -> str:
        return TOPIC


def event(number: int, size: int, sent: float = 0.0) -> Padded:
    bare = Padded(run_id="r", proof_id="p", index=number, padding="", sent=sent)
    return bare.model_copy(update={"padding": "x" * (size - len(encode(bare)))})


def sent_at(body: bytes) -> float:
    """Read the last field of a benchmark event without parsing all of its JSON."""
    return float(body[body.rindex(b":") + 1 : -1])


class Counter:
    """Counts the messages of all threads and prints the figures for the benchmark."""

    def __init__(self, count: int, paced: int) -> None:
        self._count, self._paced, self._seen = count, paced, 0
        self._lock, self._latencies = threading.Lock(), list[float]()

    def take(self, sent: float) -> None:
        """Count one message; `sent` is 0 if only the rate is measured."""
        with self._lock:
            if sent:
                self._latencies.append(time.monotonic() - sent)
                self._tell_latencies()
            else:
                self._tell_rate()

    def handle(self, delivery: Delivery) -> Outcome:
        self.take(sent_at(delivery.body))
        return ACK

    def _tell_rate(self) -> None:
        self._seen += 1
        if self._seen == 1:
            self._began = time.perf_counter(), time.process_time()
        if self._seen == self._count:
            tell([time.perf_counter() - self._began[0], time.process_time() - self._began[1]])

    def _tell_latencies(self) -> None:
        if len(self._latencies) == self._paced:
            tell(self._latencies)


def tell(figures: list[float]) -> None:
    print(json.dumps(figures), flush=True)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """The time in seconds, and this process's CPU time in seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - cpu


class CountingService:
    """Replaces the role of a worker process: opens its bus with a handler that only counts."""

    drain_s, grace_s = 0.0, 5.0

    def __init__(self, counter: Counter, app: celery.Celery, role: str, concurrency: int) -> None:
        from proofloop.bus import open_worker_bus
        from proofloop.config.settings import load_settings

        self.stopping, self.cancelling = threading.Event(), threading.Event()
        self.bus = open_worker_bus(load_settings(), app, roles=[role], connect_s=15.0)
        self.bus.serve(role, [TOPIC], counter.handle, concurrency=concurrency)

    def ready(self) -> None:
        """Do nothing: the benchmark does not wait for it."""

    def close(self) -> None:
        self.bus.close()


def ours(url: str, namespace: str, counter: Counter, *, events: bool) -> None:
    """The application and worker of `proofloop serve`, with settings from the environment."""
    os.environ |= {
        "PROOFLOOP_BROKER": url,
        "PROOFLOOP_NAMESPACE": namespace,
        "PROOFLOOP_TASK_EVENTS": str(events),
    }
    from proofloop.bus import make_app
    from proofloop.config.settings import load_settings
    from proofloop.worker.logs import configure_logging

    settings = load_settings()
    app = make_app(
        settings,
        partial(CountingService, counter),
        lambda **_: configure_logging(settings.log_level),
    )
    queues, prefetch = [f"{namespace}.{ROLE}"], PREFETCH // THREADS
    app.Worker(queues=queues, concurrency=THREADS, prefetch_multiplier=prefetch, quiet=True).start()


def celery_app(url: str, queue: str) -> celery.Celery:
    """The settings of a reliable application: late acknowledgements, publisher confirms, no
    results.
    """
    app = celery.Celery(broker=url)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=PREFETCH // THREADS,
        worker_detect_quorum_queues=True,
        broker_transport_options={"confirm_publish": True},
        task_default_queue=queue,
        task_queues=[Queue(queue, no_declare=True, queue_arguments={"x-queue-type": "quorum"})],
    )
    return app


def plain_celery(url: str, namespace: str, counter: Counter) -> None:
    """An empty task, handled by Celery's thread pool."""
    app = celery_app(url, f"{namespace}.{ROLE}")

    @app.task(name="review")  # type: ignore[untyped-decorator]
    def review(padding: str, sent: float) -> None:
        counter.take(sent)

    app.Worker(pool="threads", concurrency=THREADS, loglevel="ERROR", quiet=True).start()


def main(kind: str, url: str, namespace: str, count: int, paced: int) -> None:
    counter = Counter(count, paced)
    if kind == "celery":
        plain_celery(url, namespace, counter)
    else:
        ours(url, namespace, counter, events=kind == "ours_events")


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
