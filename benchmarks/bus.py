"""How fast the bus is beside bare pika and a plain Celery task, on one and the same durable quorum queue.

The broker is PROOFLOOP_TEST_BROKER or one of our own. All three are measured in turn, several times, and the medians
reported: messages a second, CPU seconds a message of this process (and of Celery's worker; the broker's own are not in
it), and the 99th percentile of the time from publishing to handling at a rate that all three can keep. The last line is
JSON. `--small`: few messages, 2 KB, one round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import celery
from kombu import Queue
from pika import BasicProperties, SelectConnection, URLParameters
from pika.channel import Channel

from proofloop.bus import ACK, Delivery, Outcome
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.topology import Topology
from proofloop.messages import ReviewJudged, encode

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.processes import folder
from tests.integration.servers import RABBITMQ, delete_namespace, running_rabbitmq

PREFETCH, THREADS, WINDOW = 200, 4, 500
ROLE, TOPIC = "labeler", "ReviewJudged"
PACE_S = 0.005
"""Between two messages whose latency is measured."""


@dataclass(frozen=True)
class Work:
    """The load: messages of that many bytes for the rates, and for the latency; Celery gets a tenth of the first."""

    size: int
    count: int
    paced: int


@dataclass(frozen=True)
class Figures:
    """What one contender did in one round. CPU in seconds a message, latency in seconds."""

    publish: float
    consume: float
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
    small = parser.parse_args().small
    sizes, count, paced, rounds = ((2_000,), 3_000, 200, 1) if small else ((2_000, 20_000), 20_000, 1_000, 5)
    results: dict[str, float] = {}
    with broker() as url:
        for size in sizes:
            found = compare(url, Work(size, count, paced), rounds)
            results |= {f"{name}_{size // 1000}kb": value for name, value in found.items()}
    print(json.dumps(results))


def compare(url: str, work: Work, rounds: int) -> dict[str, float]:
    """Medians of each contender, and the ratios of those medians."""
    contenders = {"ours": ours, "pika": bare_pika, "celery": celery_task}
    seen: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            with queue(url) as place:
                seen[name].append(measure(place, work))
            print(f"round {number + 1} of {rounds}, {work.size} bytes, {name}: {seen[name][-1]}", file=sys.stderr)
    median = {name: medians(found) for name, found in seen.items()}
    us, pika, task = median["ours"], median["pika"], median["celery"]
    ratios = {
        "publish_ratio_to_pika": us.publish / pika.publish,
        "consume_ratio_to_pika": us.consume / pika.consume,
        "ratio_to_celery": end_to_end(us) / end_to_end(task),
    }
    rates = {f"{who}_{what.name}": getattr(one, what.name) for who, one in median.items() for what in fields(one)}
    return {name: float(f"{value:.3g}") for name, value in {**ratios, **rates}.items()}


def medians(rounds: Sequence[Figures]) -> Figures:
    return Figures(*(statistics.median(getattr(one, what.name) for one in rounds) for what in fields(Figures)))


def end_to_end(figures: Figures) -> float:
    """Messages a second when publishing and consuming follow one another."""
    return 1 / (1 / figures.publish + 1 / figures.consume)


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
    """A role's queue, empty, gone at the end."""
    place = Place(url, f"bench-{uuid.uuid4().hex[:8]}")
    RabbitBus(url, namespace=place.namespace, roles=[ROLE]).close()
    yield place
    delete_namespace(url, place.namespace)


class Padded(ReviewJudged):
    """An event of any size: what is not known is ignored by who reads it."""

    padding: str
    sent: float = 0.0

    @property
    def name(self) -> str:
        return TOPIC


def event(number: int, size: int, sent: float = 0.0) -> Padded:
    bare = Padded(run_id="r", proof_id="p", index=number, padding="", sent=sent)
    return bare.model_copy(update={"padding": "x" * (size - len(encode(bare)))})


def ours(place: Place, work: Work) -> Figures:
    """Events through `RabbitBus`: published in one call, JSON and all; then consumed with an acknowledgement each."""
    events = [event(number, work.size) for number in range(work.count)]
    open_bus = partial(RabbitBus, place.url, namespace=place.namespace, roles=[ROLE])
    sender, receiver = open_bus(), open_bus(prefetch=PREFETCH)
    publish_s, publish_cpu = timed(lambda: sender.publish(events))
    arrived = Arrivals(work.count)
    begin = partial(receiver.serve, ROLE, [TOPIC], arrived, concurrency=THREADS)
    consume_s, consume_cpu = timed(lambda: (begin(), arrived.all.wait()))
    arrived.expect(work.paced)
    for number in range(work.paced):
        sender.publish([event(number, work.size, time.monotonic())])
        time.sleep(PACE_S)
    arrived.all.wait()
    for bus in (receiver, sender):
        bus.close()
    count = work.count
    return Figures(
        count / publish_s, count / consume_s, publish_cpu / count, consume_cpu / count, p99(arrived.latencies)
    )


class Arrivals:
    """The handler: counts what comes and notes when."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self.expect(count)

    def expect(self, count: int) -> None:
        self._left, self.latencies, self.all = count, list[float](), threading.Event()

    def __call__(self, delivery: Delivery) -> Outcome:
        sent = sent_at(delivery.body)
        with self._lock:
            if sent:
                self.latencies.append(time.monotonic() - sent)
            self._left -= 1
            if not self._left:
                self.all.set()
        return ACK


def sent_at(body: bytes) -> float:
    """The last field of an event of this benchmark, without reading all of its JSON."""
    return float(body[body.rindex(b":") + 1 : -1])


def bare_pika(place: Place, work: Work) -> Figures:
    """The least that can be done by pika: bytes that are ready, a window of confirms, then an acknowledgement each."""
    body = encode(event(0, work.size))
    publish_s, publish_cpu = timed(lambda: on_channel(place.url, partial(pika_publish, place.queue, body, work.count)))
    consume_s, consume_cpu = timed(lambda: on_channel(place.url, partial(pika_consume, place.queue, work.count, [])))
    latencies: list[float] = []
    on_channel(place.url, partial(pika_paced, place.queue, work, latencies))
    count = work.count
    return Figures(count / publish_s, count / consume_s, publish_cpu / count, consume_cpu / count, p99(latencies))


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
        channel.basic_publish("", queue, encode(event(number, work.size, time.monotonic())), PERSISTENT)
        if number + 1 < work.paced:
            channel.connection.ioloop.call_later(PACE_S, partial(send, number + 1))

    channel.confirm_delivery(lambda _: None, callback=lambda _: send(0))


def on_channel(url: str, work: Callable[[Channel], None]) -> None:
    """Do this on a channel, until its connection is closed."""
    connection = SelectConnection(
        URLParameters(url),
        lambda connection: connection.channel(on_open_callback=work),
        on_close_callback=lambda connection, _: connection.ioloop.stop(),
    )
    connection.ioloop.start()


def celery_app(url: str, queue: str) -> celery.Celery:
    """Settings as for anything that matters: late acknowledgements, confirms, no results."""
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


def celery_task(place: Place, work: Work) -> Figures:
    """Empty tasks sent one by one and worked off by a pool of threads; starting the worker is not counted."""
    count = work.count // 10
    app, padding = celery_app(place.url, place.queue), "x" * work.size
    send = partial(app.send_task, "review", routing_key=place.queue)
    publish_s, publish_cpu = timed(lambda: [send([padding, 0.0]) for _ in range(count)])
    command = [sys.executable, __file__, "--celery-worker", place.url, place.queue, str(count), str(work.paced)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        consume_s, consume_cpu = json.loads(worker.stdout.readline())
        for _ in range(work.paced):
            send([padding, time.monotonic()])
            time.sleep(PACE_S)
        latencies = json.loads(worker.stdout.readline())
        worker.terminate()
    app.close()
    return Figures(count / publish_s, count / consume_s, publish_cpu / count, consume_cpu / count, p99(latencies))


def celery_worker(url: str, queue: str, count: int, paced: int) -> None:
    """In a process of its own: prints [seconds, CPU seconds] of the first `count` tasks, then the latencies."""
    app, lock, clocks, latencies = celery_app(url, queue), threading.Lock(), list[tuple[float, float]](), list[float]()

    @app.task(name="review")  # type: ignore[untyped-decorator]
    def review(padding: str, sent: float) -> None:
        with lock:
            if sent:
                latencies.append(time.monotonic() - sent)
            else:
                clocks.append((time.perf_counter(), time.process_time()))
            if not sent and len(clocks) == count:
                print(json.dumps([last - first for first, last in zip(clocks[0], clocks[-1], strict=True)]), flush=True)
            if len(latencies) == paced:
                print(json.dumps(latencies), flush=True)

    app.Worker(pool="threads", concurrency=THREADS, loglevel="ERROR", quiet=True).start()


def p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[int(0.99 * len(latencies))]


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    if sys.argv[1:2] == ["--celery-worker"]:
        celery_worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
