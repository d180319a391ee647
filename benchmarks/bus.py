"""Compares the bus with bare pika and a plain Celery task on the same durable quorum queue.

The broker is PROOFLOOP_TEST_BROKER, or one that the benchmark starts. The contenders are measured
in turn, in several rounds. The figures are medians: messages per second, CPU seconds per message in
the client's process (without the broker), and the 99th percentile of the time from publishing to
handling, at a rate that all contenders can sustain.

All contenders but bare pika consume in a separate process (bus_worker.py) with the same numbers of
threads and prefetched messages. `ours` is the worker of `proofloop serve` with a handler that only
counts; `ours_events` also sends task events; `celery` is a plain task. The last line is JSON.
`--small`: few messages, 2 KB, one round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from pika import BasicProperties, SelectConnection, URLParameters
from pika.channel import Channel

from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.topology import Topology
from proofloop.schema.events import encode

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.bus_worker import PACE_S, PREFETCH, ROLE, celery_app, event, sent_at, timed
from tests.integration.processes import folder
from tests.integration.servers import RABBITMQ, delete_namespace, running_rabbitmq

WINDOW = 500
"""The most unconfirmed messages of bare pika, the same as in our publisher."""


@dataclass(frozen=True)
class Work:
    """The load: the numbers of messages for the rates and for the latency, and their size in bytes.

    Celery gets half of the messages for the rates.
    """

    size: int
    count: int
    paced: int


@dataclass(frozen=True)
class Figures:
    """The figures of one contender in one round; CPU in seconds per message, latency in seconds."""

    publish_per_second: float
    consume_per_second: float
    publish_cpu: float
    consume_cpu: float
    latency_p99: float


@dataclass(frozen=True)
class Place:
    """The queue that all contenders use."""

    url: str
    namespace: str

    @property
    def queue(self) -> str:
        return Topology(self.namespace).queue(ROLE).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    asked = parser.parse_args()
    sizes, count, paced, rounds = (
        ((2_000,), 2_000, 200, 1) if asked.small else ((2_000, 20_000), 8_000, 400, 5)
    )
    results: dict[str, float] = {}
    with broker() as url:
        for size in sizes:
            found = compare(url, Work(size, count, paced), rounds)
            results |= {f"{name}_{size // 1000}kb": value for name, value in found.items()}
    print(json.dumps(results))


def compare(url: str, work: Work, rounds: int) -> dict[str, float]:
    """The ratios of the medians, then each contender's medians; those of `ours` have no prefix."""
    seen: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name, measure in CONTENDERS.items():
            with queue(url) as place:
                seen[name].append(measure(place, work))
            print(
                f"round {number + 1} of {rounds}, {work.size} bytes, {name}: {seen[name][-1]}",
                file=sys.stderr,
            )
    median = {name: medians(found) for name, found in seen.items()}
    figures = ratios(median)
    for who, one in median.items():
        prefix = "" if who == "ours" else f"{who}_"
        figures |= {f"{prefix}{what.name}": getattr(one, what.name) for what in fields(one)}
    return {name: float(f"{value:.3g}") for name, value in figures.items()}


def ratios(median: dict[str, Figures]) -> dict[str, float]:
    """The ratios of our rates to the others'."""
    us, pika, task = median["ours"], median["pika"], median["celery"]
    return {
        "publish_ratio_to_pika": us.publish_per_second / pika.publish_per_second,
        "publish_ratio_to_celery": us.publish_per_second / task.publish_per_second,
        "consume_ratio_to_pika": us.consume_per_second / pika.consume_per_second,
        "consume_ratio_to_celery": us.consume_per_second / task.consume_per_second,
    }


def medians(rounds: Sequence[Figures]) -> Figures:
    return Figures(
        *(statistics.median(getattr(one, what.name) for one in rounds) for what in fields(Figures))
    )


@contextmanager
def broker() -> Iterator[str]:
    if url := os.environ.get("PROOFLOOP_TEST_BROKER"):
        yield url
        return
    if not RABBITMQ.exists():
        sys.exit("error: no broker: apt-get install rabbitmq-server, or set PROOFLOOP_TEST_BROKER")
    with folder("proofloop-bench-") as place, running_rabbitmq(place) as own:
        yield own.url


@contextmanager
def queue(url: str) -> Iterator[Place]:
    """An empty queue of a role, deleted at the end."""
    place = Place(url, f"bench-{uuid.uuid4().hex[:8]}")
    RabbitBus(url, namespace=place.namespace, roles=[ROLE]).close()
    yield place
    delete_namespace(url, place.namespace)


def ours(kind: str, place: Place, work: Work) -> Figures:
    """Our bus: events are published as JSON in one call; our worker consumes and acknowledges
    each.
    """
    events = [event(number, work.size) for number in range(work.count)]
    bus = RabbitBus(place.url, namespace=place.namespace, roles=[ROLE])
    published = timed(lambda: bus.publish(events))

    def send(number: int) -> None:
        bus.publish([event(number, work.size, time.monotonic())])

    figures = consumed(kind, place, work, published, send)
    bus.close()
    return figures


def celery_task(place: Place, work: Work) -> Figures:
    """Plain Celery: empty tasks are sent one by one and handled by Celery's thread pool."""
    work = Work(work.size, work.count // 2, work.paced)
    app, padding = celery_app(place.url, place.queue), "x" * work.size
    send = partial(app.send_task, "review", routing_key=place.queue)
    published = timed(lambda: [send([padding, 0.0]) for _ in range(work.count)])
    figures = consumed(
        "celery", place, work, published, lambda _: send([padding, time.monotonic()])
    )
    app.close()
    return figures


def consumed(
    kind: str, place: Place, work: Work, published: Sequence[float], send: Callable[[int], object]
) -> Figures:
    """Let a worker consume the published messages, then send the paced ones."""
    with worker(kind, place, work) as read:
        taken = read()
        for number in range(work.paced):
            send(number)
            time.sleep(PACE_S)
        latencies = read()
    return figures_of(work, published, taken, latencies)


@contextmanager
def worker(kind: str, place: Place, work: Work) -> Iterator[Callable[[], list[float]]]:
    """Run a process of bus_worker.py; yields a function that reads its next line."""
    script = str(Path(__file__).with_name("bus_worker.py"))
    counts = str(work.count), str(work.paced)
    command = [sys.executable, script, kind, place.url, place.namespace, *counts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout
        assert output is not None
        yield lambda: json.loads(output.readline())
        process.terminate()


def figures_of(
    work: Work, published: Sequence[float], taken: Sequence[float], latencies: Sequence[float]
) -> Figures:
    """The figures from [seconds, CPU seconds] of publishing and of consuming."""
    (publish_s, publish_cpu), (consume_s, consume_cpu) = published, taken
    count = work.count
    return Figures(
        count / publish_s,
        count / consume_s,
        publish_cpu / count,
        consume_cpu / count,
        p99(latencies),
    )


def bare_pika(place: Place, work: Work) -> Figures:
    """Bare pika with the least work: prepared bytes, a window of confirms, and an acknowledgement
    for each message.
    """
    body = encode(event(0, work.size))
    published = timed(
        lambda: on_channel(place.url, partial(pika_publish, place.queue, body, work.count))
    )
    taken = timed(lambda: on_channel(place.url, partial(pika_consume, place.queue, work.count, [])))
    latencies: list[float] = []
    on_channel(place.url, partial(pika_paced, place.queue, work, latencies))
    return figures_of(work, published, taken, latencies)


PERSISTENT = BasicProperties(delivery_mode=2)


def pika_publish(queue: str, body: bytes, count: int, channel: Channel) -> None:
    sent = confirmed = 0

    def fill() -> None:
        nonlocal sent
        while sent < count and sent - confirmed < WINDOW:
            channel.basic_publish("", queue, body, PERSISTENT)
            sent += 1

    def confirm(frame) -> None:  # type: ignore[no-untyped-def]
        nonlocal confirmed
        confirmed = frame.method.delivery_tag if frame.method.multiple else confirmed + 1
        channel.connection.close() if confirmed >= count else fill()

    channel.confirm_delivery(confirm, callback=lambda _: fill())


def pika_consume(queue: str, count: int, latencies: list[float], channel: Channel) -> None:
    seen = 0

    def take(channel, method, properties, body) -> None:  # type: ignore[no-untyped-def]
        nonlocal seen
        seen += 1
        if sent := sent_at(body):
            latencies.append(time.monotonic() - sent)
        channel.basic_ack(method.delivery_tag)
        if seen == count:
            channel.connection.close()

    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(queue, take)


def pika_paced(queue: str, work: Work, latencies: list[float], channel: Channel) -> None:
    pika_consume(queue, work.paced, latencies, channel)

    def send(number: int) -> None:
        channel.basic_publish(
            "", queue, encode(event(number, work.size, time.monotonic())), PERSISTENT
        )
        if number + 1 < work.paced:
            channel.connection.ioloop.call_later(PACE_S, partial(send, number + 1))

    channel.confirm_delivery(lambda _: None, callback=lambda _: send(0))


def on_channel(url: str, work: Callable[[Channel], None]) -> None:
    """Run `work` on a channel until it closes the connection."""
    connection = SelectConnection(
        URLParameters(url),
        lambda connection: connection.channel(on_open_callback=work),
        on_close_callback=lambda connection, _: connection.ioloop.stop(),
    )
    connection.ioloop.start()


def p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[int(0.99 * len(latencies))]


CONTENDERS: dict[str, Callable[[Place, Work], Figures]] = {
    "ours": partial(ours, "ours"),
    "pika": bare_pika,
    "celery": celery_task,
    "ours_events": partial(ours, "ours_events"),
}
"""In the order of a round."""


if __name__ == "__main__":
    main()
