"""How fast the bus is beside bare pika and a plain Celery task, on one durable quorum queue.

The broker is PROOFLOOP_TEST_BROKER or one of our own. The last line is JSON: messages a second and ratios by body size.
`--small`: fewer messages, 2 KB only, without Celery, which also needs `pip install celery`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pika import BasicProperties, SelectConnection, URLParameters
from pika.channel import Channel

from proofloop.bus import ACK, Delivery, Outcome
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.messages import ReviewJudged, encode

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.servers import RABBITMQ, _folder, _rabbitmq, delete_namespace

PREFETCH, THREADS, WINDOW = 200, 4, 500


def main() -> None:
    small = "--small" in sys.argv
    count, sizes = (3_000, (2_000,)) if small else (20_000, (2_000, 20_000))
    results: dict[str, float] = {}
    with broker() as url:
        for size in sizes:
            ours_publish, ours_consume = ours(url, count, size)
            pika_publish, pika_consume = bare_pika(url, count, size)
            found = {"publish": ours_publish, "consume": ours_consume}
            found |= {"pika_publish": pika_publish, "pika_consume": pika_consume}
            found |= {"publish_ratio_to_pika": ours_publish / pika_publish}
            found |= {"consume_ratio_to_pika": ours_consume / pika_consume}
            if not small and find_spec("celery"):
                found |= {"celery_end_to_end": (rate := celery(url, count // 20, size))}
                found |= {"ratio_to_celery": 1 / (1 / ours_publish + 1 / ours_consume) / rate}
            print(
                f"{size} bytes: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), file=sys.stderr
            )
            results |= {f"{name}_{size // 1000}kb": round(value, 2) for name, value in found.items()}
    print(json.dumps(results))


@contextmanager
def broker() -> Iterator[str]:
    if url := os.environ.get("PROOFLOOP_TEST_BROKER"):
        yield url
        return
    if not RABBITMQ.exists():
        sys.exit("error: no broker: apt-get install rabbitmq-server, or set PROOFLOOP_TEST_BROKER")
    with _folder("proofloop-bench-") as folder, _rabbitmq(folder) as own:
        yield own.url


def ours(url: str, count: int, size: int) -> tuple[float, float]:
    """Events of that size through `RabbitBus`: published in one call, then consumed with an acknowledgement each."""
    namespace, done, seen = f"bench-{uuid.uuid4().hex[:8]}", threading.Event(), iter(range(1, count + 1))
    events = [ReviewJudged(run_id="r", proof_id="p", index=number) for number in range(count)]
    padding = size - len(encode(events[0]))
    padded = [Padded(**event.model_dump(), padding="x" * padding) for event in events]
    first, second = (RabbitBus(url, namespace=namespace, roles=["labeler"], prefetch=PREFETCH) for _ in range(2))
    lock = threading.Lock()

    def process(delivery: Delivery) -> Outcome:
        with lock:
            if next(seen) == count:
                done.set()
        return ACK

    publish_s = timed(lambda: first.publish(padded))
    began = time.perf_counter()
    second.serve("labeler", ["ReviewJudged"], process, concurrency=THREADS)
    done.wait()
    consume_s = time.perf_counter() - began
    first.close()
    second.close()
    delete_namespace(url, namespace)
    return count / publish_s, count / consume_s


class Padded(ReviewJudged):
    """An event of any size: what is not known is ignored by who reads it."""

    padding: str

    @property
    def name(self) -> str:
        return "ReviewJudged"


def bare_pika(url: str, count: int, size: int) -> tuple[float, float]:
    """The least that can be done by pika: a window of confirms, then an acknowledgement each."""
    queue, body = f"bench-{uuid.uuid4().hex[:8]}", b"x" * size
    persistent = BasicProperties(delivery_mode=2)

    def publish(channel: Channel, stop: Callable[[], None]) -> None:
        sent = confirmed = 0

        def fill() -> None:
            nonlocal sent
            while sent < count and sent - confirmed < WINDOW:
                channel.basic_publish("", queue, body, persistent)
                sent += 1

        def confirm(frame) -> None:  # type: ignore[no-untyped-def]
            nonlocal confirmed
            confirmed = frame.method.delivery_tag if frame.method.multiple else confirmed + 1
            stop() if confirmed >= count else fill()

        channel.confirm_delivery(confirm)
        arguments = {"x-queue-type": "quorum"}
        channel.queue_declare(queue, durable=True, arguments=arguments, callback=lambda _: fill())

    def consume(channel: Channel, stop: Callable[[], None]) -> None:
        seen = 0

        def take(channel, method, properties, body) -> None:  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += 1
            channel.basic_ack(method.delivery_tag)
            if seen == count:
                channel.queue_delete(queue, callback=lambda _: stop())

        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(queue, take)

    return count / timed(lambda: on_channel(url, publish)), count / timed(lambda: on_channel(url, consume))


def on_channel(url: str, work: Callable[[Channel, Callable[[], None]], None]) -> None:
    def opened(connection: SelectConnection) -> None:
        connection.channel(on_open_callback=lambda channel: work(channel, connection.close))

    connection = SelectConnection(
        URLParameters(url), opened, on_close_callback=lambda connection, _: connection.ioloop.stop()
    )
    connection.ioloop.start()


CELERY_APP = """
import celery
from kombu import Queue
app = celery.Celery(broker={url!r})
app.conf.update(task_acks_late=True, worker_prefetch_multiplier={prefetch}, task_ignore_result=True,
                broker_transport_options={{"confirm_publish": True}}, worker_detect_quorum_queues=True,
                task_default_queue={queue!r}, task_default_queue_type="quorum",
                task_queues=[Queue({queue!r}, queue_arguments={{"x-queue-type": "quorum"}})])
seen = iter(range(1, {count} + 1))
@app.task(name="review")
def review(padding):
    if next(seen) == {count}:
        open({done!r}, "w").close()
"""


def celery(url: str, count: int, size: int) -> float:
    """The same number of empty tasks sent one by one and worked off by a thread pool, end to end."""
    with tempfile.TemporaryDirectory() as folder:
        done, queue = Path(folder, "done"), f"bench-{uuid.uuid4().hex[:8]}"
        fields = {"url": url, "queue": queue, "count": count, "done": str(done), "prefetch": PREFETCH // THREADS}
        Path(folder, "bench_app.py").write_text(CELERY_APP.format(**fields))
        sys.path.insert(0, folder)
        from bench_app import review  # type: ignore[import-not-found]

        del sys.modules["bench_app"]
        sys.path.remove(folder)
        began = time.perf_counter()
        for _ in range(count):
            review.delay("x" * size)
        publish_s = time.perf_counter() - began
        command = [sys.executable, "-m", "celery", "-A", "bench_app", "worker", "-P", "threads", "-c", str(THREADS)]
        with subprocess.Popen([*command, "--loglevel=ERROR"], cwd=folder, stdout=subprocess.PIPE, text=True) as worker:
            consume_s = wait_for_celery(done, review.app, queue, count)
            worker.terminate()
        return count / (publish_s + consume_s)


def wait_for_celery(done: Path, app, queue: str, count: int) -> float:  # type: ignore[no-untyped-def]
    """Seconds from the first task taken to the last one done: starting the worker is not counted."""
    with app.connection() as connection:
        channel, began = connection.default_channel, 0.0
        while not done.exists():
            if not began and channel.queue_declare(queue, passive=True).message_count < count:
                began = time.perf_counter()
            time.sleep(0.005)
        elapsed = time.perf_counter() - began
        channel.queue_delete(queue)
    return elapsed


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
