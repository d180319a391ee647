"""Where Celery's own worker would lose, repeat or hold up an event: each test fails without our
handling of it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import amqp
import httpx
import pytest
import structlog
from celery import Celery
from pika import BasicProperties, BlockingConnection, URLParameters

from proofloop.bus import ACK, BusState, DeadLetter, Delivery, Outcome
from proofloop.bus.broker_connection import LONGEST_PAUSE_S
from proofloop.bus.celery_worker import EventConsumer
from proofloop.bus.dead_letters import DeadLetters
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.task_message import FAILURES
from proofloop.errors import BusError, Reject
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.events import ProblemPosed, ReviewJudged, decode, encode
from proofloop.schema.records import Problem
from proofloop.store import LocalStore, put_record
from tests.builders import RUN, runspec
from tests.integration.embedded_worker import EmbeddedBus
from tests.integration.installation import Installation
from tests.integration.processes import folder
from tests.integration.rabbitmq import running_rabbitmq
from tests.integration.servers import Broker, cut_connections, delete_namespace
from tests.waiting import wait_until

CELERY = Path(sys.executable).with_name("celery")
EVENT = ReviewJudged(run_id="r1", proof_id="p1", index=0)


class Place:
    """A worker of the labeler in this process; `handle` gets each delivery that can be read."""

    def __init__(self, broker: Broker) -> None:
        self.namespace = f"worker-{uuid.uuid4().hex[:8]}"
        self.broker, self.queue = broker, f"{self.namespace}.labeler"
        self.bus = EmbeddedBus(broker.url, namespace=self.namespace)
        self.letters = DeadLetters(broker.url, namespace=self.namespace)
        self.seen: list[Delivery] = []
        self.first_outcome = ACK
        self.gate = threading.Event()
        self.gate.set()

    def start(self, *, concurrency: int = 2, **settings: Any) -> None:
        self.bus.app.conf.update(settings)
        self.bus.serve("labeler", ["ReviewJudged"], self.handle, concurrency=concurrency)
        self.bus.start()

    def handle(self, delivery: Delivery) -> Outcome:
        try:
            decode(delivery.body)
        except Reject as refusal:
            return Outcome("dead", str(refusal))
        self.seen.append(delivery)
        self.gate.wait(30)
        return ACK if delivery.redelivered else self.first_outcome

    def publish(self, body: bytes, **properties: Any) -> None:
        """Put a message into the queue as any client could."""
        with BlockingConnection(URLParameters(self.broker.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(
                "", self.queue, body, BasicProperties(**properties), mandatory=True
            )

    def dead(self) -> list[DeadLetter]:
        return list(self.letters.letters())

    def ready(self) -> int:
        return next(depth.ready for depth in self.letters.depths() if depth.role == "labeler")

    def ends_calmly(self) -> None:
        """The worker still handles what comes, and nothing is left over."""
        self.bus.publish([EVENT])
        assert wait_until(lambda: bool(self.seen) and self.seen[-1].body == encode(EVENT), 30)
        assert wait_until(lambda: not self.bus.unsettled, 30)
        assert self.ready() == 0


@pytest.fixture
def place(broker: Broker) -> Iterator[Place]:
    one = Place(broker)
    try:
        yield one
    finally:
        one.gate.set()
        one.bus.close(grace_s=5)
        delete_namespace(broker.url, one.namespace)


TASK = {"task": "ReviewJudged", "id": "1", "lang": "py"}
JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
UNREADABLE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no JSON": (b"\xff\xfe no JSON", {**JSON, "headers": TASK}),
    "a number": (b"5", {**JSON, "headers": TASK}),
    "no three parts": (b"[[1]]", {**JSON, "headers": TASK}),
    "no event": (b"[[7], {}, {}]", {**JSON, "headers": TASK}),
    "another task": (b"[[], {}, {}]", {**JSON, "headers": {"task": "ProofFormalised", "id": "1"}}),
    "a task of Celery's": (
        b"[[], {}, {}]",
        {**JSON, "headers": {"task": "celery.backend_cleanup", "id": "1"}},
    ),
    "no task, no type": (b"x", {}),
    "protocol 1": (b'{"task": "ReviewJudged", "id": "1", "args": [1]}', JSON),
    "pickle": (
        b"cos\nsystem\n",
        {"content_type": "application/x-python-serialize", "headers": TASK},
    ),
    "bad compression": (b"x", {**JSON, "headers": {**TASK, "compression": "application/x-gzip"}}),
    "a time that is none": (b"[[], {}, {}]", {**JSON, "headers": {**TASK, "eta": "soon"}}),
    "an id that is none": (b"[[], {}, {}]", {**JSON, "headers": {"task": "ReviewJudged"}}),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_celery_cannot_read_is_a_dead_letter_with_its_reason(
    kind: str, place: Place, quiet_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    place.start()
    body, properties = UNREADABLE[kind]
    place.publish(body, **properties)
    assert wait_until(lambda: len(place.dead()) == 1, 30)
    [letter] = place.dead()
    assert "event" in letter.reason, letter.reason
    place.ends_calmly()


def test_an_event_that_is_no_task_is_understood(place: Place) -> None:
    place.start()
    place.publish(
        encode(EVENT), content_type="application/json", headers={FAILURES: 2}, type="ReviewJudged"
    )
    assert wait_until(lambda: len(place.seen) == 1, 30)
    assert (place.seen[0].body, place.seen[0].attempt) == (encode(EVENT), 3)
    place.ends_calmly()


def test_any_celery_client_can_send_an_event(place: Place) -> None:
    place.start()
    client = Celery(broker=place.broker.url, set_as_current=False)
    client.conf.task_queues = [place.bus.topology.queue("labeler", ["ReviewJudged"])]
    fields = json.loads(encode(EVENT))
    client.send_task("ReviewJudged", args=[fields], queue=place.queue, expires=-60)
    client.close()
    assert wait_until(lambda: len(place.seen) == 1, 30), (
        "also what has expired: its run waits for it"
    )
    assert json.loads(place.seen[0].body) == fields


def test_celery_control_loses_no_event(place: Place) -> None:
    place.gate.clear()
    place.start(concurrency=1)
    place.bus.publish([EVENT, ReviewJudged(run_id="r1", proof_id="p2", index=0)])
    assert wait_until(lambda: len(place.seen) == 1, 30)
    control = place.bus.app.control
    [[active]] = control.inspect(timeout=60, limit=1).active().values()
    assert active["args"] == [json.loads(encode(EVENT))]
    for command, arguments in {
        "revoke": {"task_id": EVENT.id, "terminate": True},
        "add_consumer": {"queue": f"{place.namespace}.verifier"},
        "pool_grow": {"n": 1},
        "pool_shrink": {"n": 1},
        "rate_limit": {"task_name": "ReviewJudged", "rate_limit": "1/m"},
    }.items():
        [reply] = control.broadcast(command, arguments=arguments, reply=True, timeout=60, limit=1)
        assert "error" in reply["worker@test"], (command, reply)
    place.gate.set()
    assert wait_until(lambda: len(place.seen) == 2 and not place.bus.unsettled, 30)
    assert place.ready() == 0


def test_a_draining_worker_sends_heartbeats(place: Place) -> None:
    """A broker that misses them takes the message back after two seconds, and it is handled
    twice.
    """
    place.gate.clear()
    place.start(broker_heartbeat=1)
    place.bus.publish([EVENT])
    assert wait_until(lambda: len(place.seen) == 1, 30)
    threading.Timer(6.0, place.gate.set).start()
    place.bus.close(grace_s=30)
    assert place.ready() == 0


def test_a_channel_that_the_broker_closes_ends_no_worker(place: Place) -> None:
    """As at consumer_timeout, with error 406."""
    place.start()
    worker = place.bus.worker
    assert worker is not None
    worker.hub.call_soon(lambda: worker.consumer.task_consumer.channel.basic_ack(999_999))
    assert wait_until(
        lambda: worker.consumer.restart_count > 0 and worker.consumer.is_consuming, 30
    )
    place.ends_calmly()


def test_what_is_acknowledged_too_late_is_said_once(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    structlog.configure(
        processors=[lambda logger, method, event: said.append(event["event"]) or _drop()]
    )
    monkeypatch.setattr("proofloop.bus.celery_worker.log", structlog.get_logger())
    place.gate.clear()
    place.start(concurrency=4)
    place.bus.publish(
        ReviewJudged(run_id="r1", proof_id=f"p{number}", index=0) for number in range(4)
    )
    assert wait_until(lambda: len(place.seen) == 4, 30)
    cut_connections(place.broker)
    assert wait_until(lambda: place.bus.losses() == 1, 30)
    # Before it is connected again, Celery drops what its loop was asked to do.
    assert wait_until(lambda: place.bus.state() == BusState(), 30)
    place.gate.set()
    assert wait_until(lambda: len(place.seen) == 8 and not place.bus.unsettled, 30), (
        "delivered again"
    )
    # The loop's thread settles after the handlers' threads have ended.
    assert wait_until(lambda: "acknowledgement_too_late" in said, 30), said
    place.ends_calmly()
    assert said.count("acknowledgement_too_late") == 1
    assert not [record for record in caplog.records if "Couldn't ack" in record.getMessage()]
    structlog.reset_defaults()


def hold_four_that_fail(place: Place) -> None:
    """Deliver four messages whose handlers fail once `place.gate` opens."""
    place.first_outcome = Outcome("failed", "a bug")
    place.gate.clear()
    place.start(concurrency=4)
    place.bus.publish(
        ReviewJudged(run_id="r1", proof_id=f"p{number}", index=0) for number in range(4)
    )
    assert wait_until(lambda: len(place.seen) == 4, 30)


def test_a_broker_that_takes_no_messages_is_told_once_for_all_of_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, attempts = place.bus.send, list[int]()

    def refuse_at_first(messages: Any) -> None:
        attempts.append(1)
        if len(attempts) <= 12:
            raise BusError("blocked")
        send(messages)

    hold_four_that_fail(place)
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr("proofloop.bus.celery_bus.log", structlog.get_logger())
        monkeypatch.setattr(place.bus, "send", refuse_at_first)
        place.gate.set()
        assert wait_until(lambda: len(place.dead()) == 4, 30)
    assert [each["event"] for each in logs].count("delivery_unsettled") == 1


def test_the_messages_of_a_lost_connection_have_no_log_entries_of_their_own(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """`broker_lost` was logged. Celery would add a traceback for each message that cannot be
    settled any more.
    """
    hold_four_that_fail(place)
    cut_connections(place.broker)
    assert wait_until(lambda: place.bus.losses() == 1, 30)
    place.gate.set()
    assert wait_until(lambda: len(place.seen) == 8 and not place.bus.unsettled, 30)
    assert not [record for record in caplog.records if "reject" in record.getMessage()]


def _drop() -> None:
    raise structlog.DropEvent


def test_workers_reconnect_after_different_pauses() -> None:
    class Connection:
        def ensure_connection(self, *_: object, **pauses: float) -> dict[str, float]:
            pauses.pop("callback")
            return pauses

    pauses = [EventConsumer.ensure_connected(object(), Connection()) for _ in range(20)]
    assert len({tuple(each.values()) for each in pauses}) == 20
    assert max(max(each.values()) for each in pauses) <= LONGEST_PAUSE_S


def test_only_the_loops_thread_settles(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    acknowledge = amqp.Channel.basic_ack

    def noting(channel: Any, *arguments: Any, **more: Any) -> Any:
        threads.add(threading.current_thread().name)
        return acknowledge(channel, *arguments, **more)

    monkeypatch.setattr(amqp.Channel, "basic_ack", noting)
    place.start(concurrency=4)
    place.bus.publish(
        ReviewJudged(run_id="r1", proof_id=f"p{number}", index=0) for number in range(50)
    )
    assert wait_until(lambda: len(place.seen) == 50 and not place.bus.unsettled, 30)
    assert threads == {place.bus._thread.name}


def test_no_delay_queues_and_no_global_prefetch(place: Place) -> None:
    """Celery would declare 28 queues. RabbitMQ closes a connection that asks for a global prefetch
    of quorum queues.
    """
    place.start()
    assert place.bus.worker is not None and place.bus.worker.consumer.qos_global is False
    if not place.broker.api:
        pytest.skip("this broker's management API is not known")
    names = [
        queue["name"] for queue in httpx.get(f"{place.broker.api}/api/queues", timeout=30).json()
    ]
    assert [name for name in names if "delay" in name] == []


# -- the worker as a process
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "a worker process serves one role"),
        (["-Q", "{0}.labeler,{0}.verifier"], "a worker process serves one role"),
        (["-Q", "{0}.labeler", "-P", "threads"], "remove -P"),
        (["-Q", "{0}.trainer", "-c", "2"], "the trainer handles one message at a time"),
    ],
)
def test_a_worker_that_could_lose_events_is_refused(
    installation: Installation, options: list[str], problem: str
) -> None:
    namespace = installation.environment["PROOFLOOP_NAMESPACE"]
    command = [
        CELERY,
        "-A",
        "proofloop.worker.service",
        "worker",
        *(word.format(namespace) for word in options),
    ]
    done = subprocess.run(
        command, env=installation.environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert problem in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_without_a_broker_celerys_command_says_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PROOFLOOP_BROKER"}
    command = [CELERY, "-A", "proofloop.worker.service", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "error: PROOFLOOP_BROKER is not set" in done.stderr and "Traceback" not in done.stderr


LABELER = [
    "celery",
    "-A",
    "proofloop.worker.service",
    "worker",
    "-Q",
    "proofloop.labeler",
    "-c",
    "1",
]


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["proofloop", "-v", "serve", "labeler"], "warning"),
        (["proofloop", "serve", "labeler"], "info"),
        (LABELER, "info"),
        (
            [
                "celery",
                "-A",
                "proofloop.worker.service",
                "worker",
                "-Q",
                "proofloop.labeler",
                "-c",
                "1",
                "-l",
                "info",
            ],
            "warning",
        ),
    ],
)
def test_a_worker_logs_from_the_level_that_was_asked_for(
    words: list[str], level: str, tmp_path: Path
) -> None:
    away = {
        "BROKER": "amqp://guest:guest@127.0.0.1:1/",
        "LOG_LEVEL": level,
        "STORE": str(tmp_path / "store"),
    }
    environment = os.environ | {f"PROOFLOOP_{name}": value for name, value in away.items()}
    command = [CELERY.with_name(words[0]), *words[1:]]
    with open(tmp_path / "log.txt", "wb") as log:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        assert wait_until(lambda: b"waiting_for_broker" in (tmp_path / "log.txt").read_bytes(), 60)
    finally:
        worker.kill()
        worker.wait()


def test_celerys_command_starts_the_same_service(installation: Installation) -> None:
    """It answers `inspect`, works off its queue, and ends with 0 when asked to."""
    namespace = installation.environment["PROOFLOOP_NAMESPACE"]
    words = [
        "-q",
        "-A",
        "proofloop.worker.service",
        "worker",
        "-Q",
        f"{namespace}.labeler",
        "-c",
        "3",
        "-n",
        "one@test",
    ]
    with open(installation.folder / "log.txt", "a") as log:
        worker = subprocess.Popen(
            [CELERY, *words],
            env=installation.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    installation.processes.append(worker)
    assert worker.stdout is not None
    ready = json.loads(worker.stdout.readline())
    assert (ready["ready"], ready["concurrency"]) == ("labeler", 3), installation.log()
    command = [
        CELERY,
        "-A",
        "proofloop.worker.service",
        "inspect",
        "-j",
        "-t",
        "30",
        "active_queues",
    ]
    asked = subprocess.run(
        command, env=installation.environment, capture_output=True, text=True, timeout=120
    )
    assert [queue["name"] for queue in json.loads(asked.stdout)["one@test"]] == [
        f"{namespace}.labeler"
    ]
    worker.terminate()
    assert worker.wait(60) == 0, installation.log()


@pytest.mark.slow
@pytest.mark.parametrize("away", ["killed", "frozen"])
def test_a_worker_stops_in_time_while_the_broker_is_away(tmp_path: Path, away: str) -> None:
    """With a call that runs for an hour, and a broker that does not even refuse a connection."""
    with folder("proofloop-away-") as place, running_rabbitmq(place) as broker:
        where = {"BROKER": broker.url, "STORE": str(tmp_path), "NAMESPACE": "away", "GRACE_S": "5"}
        environment = {
            **os.environ,
            **{f"PROOFLOOP_{name}": value for name, value in where.items()},
        }
        store = LocalStore(tmp_path)
        calls = {"latency_s": 3600, "latency_sigma": 0}
        create_run(store, runspec(engine={"kind": "simulated", "settings": calls}), resume=False)
        put_record(store, keys.problem(RUN, "p1"), Problem(id="p1", question="Prove it."))
        command = [CELERY.with_name("proofloop"), "serve", "generator"]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout is not None
            assert json.loads(worker.stdout.readline())["ready"] == "generator"
            bus = RabbitBus(broker.url, namespace="away", roles=["generator"])
            bus.publish([ProblemPosed(run_id=RUN, problem_id="p1", proof_id="p", group="p1")])
            bus.close()
            letters = DeadLetters(broker.url, namespace="away")
            assert wait_until(lambda: letters.depths()[0].ready == 0, 30)
            time.sleep(1)
            server = [
                int(entry)
                for entry in os.listdir("/proc")
                if entry.isdigit() and _serves(entry, place)
            ]
            for process in server:
                os.kill(process, signal.SIGKILL if away == "killed" else signal.SIGSTOP)
            try:
                began = time.monotonic()
                worker.terminate()
                assert worker.wait(60) == 0
                assert time.monotonic() - began < 5 + 30, (
                    "grace, and what silent sockets are waited for"
                )
            finally:
                for process in server:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGCONT)


def _serves(process: str, place: Path) -> bool:
    """Whether it is the Erlang machine of the broker in that folder."""
    with suppress(OSError):
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        return (
            b"beam.smp" in command
            and str(place).encode() in Path(f"/proc/{process}/environ").read_bytes()
        )
    return False
