"""/healthz and /readyz tell the truth when a thread is wedged or gone, the store is away, or the
service stops.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from proofloop.bus import ACK, LocalBus
from proofloop.schema import keys
from proofloop.store import LocalStore
from proofloop.worker.health import CheckTimes, Health, MonitoringServer
from tests.integration.embedded_worker import EmbeddedBus
from tests.integration.installation import Installation
from tests.integration.servers import S3, Broker, delete_namespace, free_ports
from tests.integration.test_endpoint import RUN, probe, scrape
from tests.waiting import wait_until

HEALTHY = (200, "")


@dataclass(frozen=True)
class Process:
    """What `proofloop serve` puts together, in this process; `handle` is asked for every
    message.
    """

    bus: EmbeddedBus
    port: int

    def pages(self) -> tuple[tuple[int, str], tuple[int, str]]:
        return probe(self.port, "healthz"), probe(self.port, "readyz")


@pytest.fixture
def process(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A worker that is wedged after 1.5 seconds."""
    monkeypatch.setattr("proofloop.bus.broker_connection.STALLED_S", 1.5)
    monkeypatch.setattr("proofloop.bus.celery_worker.STALLED_S", 1.5)
    monkeypatch.setattr("proofloop.bus.broker_connection.BEAT_S", 0.2)
    namespace, [port] = f"health-{os.urandom(4).hex()}", free_ports(1)
    bus = EmbeddedBus(broker.url, namespace=namespace, roles=["labeler"])
    bus.serve("labeler", ["ReviewJudged"], lambda delivery: ACK, concurrency=2)
    bus.start()
    health = Health()
    MonitoringServer("127.0.0.1", port, CollectorRegistry(), health)
    health.watch(bus, LocalStore(tmp_path), threading.Event())
    one = Process(bus, port)
    try:
        assert wait_until(lambda: one.pages() == (HEALTHY, HEALTHY), 60), one.pages()
        yield one
    finally:
        bus.close(grace_s=0.1)
        delete_namespace(broker.url, namespace)


def test_a_wedged_publisher_is_a_reason_to_restart(process: Process) -> None:
    release = threading.Event()
    process.bus._publisher._connection.call(release.wait)
    goes_wrong_until(release, process, "the thread amqp-publisher has been stuck for ")


def test_a_wedged_worker_is_a_reason_to_restart(process: Process) -> None:
    release = threading.Event()
    assert process.bus.worker is not None
    process.bus.worker.hub.call_soon(release.wait)
    goes_wrong_until(release, process, "the worker's event loop has been stuck for ")


def goes_wrong_until(release: threading.Event, process: Process, why: str) -> None:
    assert wait_until(lambda: probe(process.port, "healthz")[0] == 503, 60)
    (healthz, readyz) = process.pages()
    assert healthz[1].startswith(why)
    assert readyz[0] == 503
    release.set()
    assert wait_until(lambda: process.pages() == (HEALTHY, HEALTHY), 60), process.pages()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_thread_that_ended_is_a_reason_to_restart(process: Process) -> None:
    assert process.bus.worker is not None
    process.bus.worker.pool._of_queue["labeler"].put("no task")
    assert wait_until(lambda: probe(process.port, "healthz")[0] == 503, 60)
    assert process.pages()[0][1] in ("the thread labeler-0 ended", "the thread labeler-1 ended")


@pytest.mark.slow
def test_a_store_that_is_away_and_a_service_that_stops_are_no_reason_to_kill_it(
    installation: Installation, s3: S3
) -> None:
    installation.environment["PROOFLOOP_DRAIN_S"] = "60"
    [port] = free_ports(1)
    installation.start("generator", "--metrics-port", str(port))
    assert wait_until(lambda: answers(port), 60)
    installation.wait_ready("generator")
    assert wait_until(lambda: probe(port, "readyz") == HEALTHY, 60)
    if s3.kill and s3.start:
        s3.kill()
        assert wait_until(lambda: probe(port, "readyz")[0] == 503, 60)
        assert probe(port, "healthz") == HEALTHY
        assert "broker" not in probe(port, "readyz")[1]
        s3.start()
        assert wait_until(lambda: probe(port, "readyz") == HEALTHY, 60), probe(port, "readyz")
    run = installation.folder / "counted.toml"
    run.write_text(RUN.replace("latency_s = 0.02", "latency_s = 10, latency_sigma = 0"))
    posing = installation.call("run", str(run))
    assert wait_until(lambda: sum(scrape(port)["proofloop_messages_in_work"].values()) > 0, 60)
    service = installation.services["generator"]
    service.send_signal(signal.SIGTERM)
    assert wait_until(lambda: probe(port, "readyz") == (503, "stopping"), 60)
    assert probe(port, "healthz") == HEALTHY
    assert service.wait(60) == 0, installation.log()
    posing.send_signal(signal.SIGINT)
    assert posing.wait(60) == 130


def answers(port: int) -> bool:
    """Before the bus and the store are there it says that it is starting, or nothing yet."""
    try:
        healthz, readyz = probe(port, "healthz"), probe(port, "readyz")
    except httpx.TransportError:
        return False
    assert healthz == HEALTHY
    assert readyz[0] in (200, 503)
    return True


def test_a_store_whose_folder_cannot_be_looked_at_is_away_until_it_can(tmp_path: Path) -> None:
    health = Health(CheckTimes(interval_s=0.05))
    stopping = threading.Event()
    specs = tmp_path / keys.SPECS.rstrip("/")
    specs.symlink_to(specs.name)
    health.watch(LocalBus(), LocalStore(tmp_path), stopping)
    assert wait_until(lambda: "cannot read the size of" in health.unready(), 60), health.unready()
    assert health.broken() == ""
    specs.unlink()
    assert wait_until(lambda: health.unready() == "", 60), health.unready()
    stopping.set()
