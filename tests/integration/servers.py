"""Real servers for tests: a RabbitMQ broker and an S3 store.

Taken from the environment if it names them, else started from installed programs, else installed by
apt (as root on Debian or Ubuntu), else run by Docker or podman, else the test is skipped with the
reason. Own servers listen on private ports, live in a temporary folder, and are gone at the end.

PROOFLOOP_TEST_BROKER=amqp://...  PROOFLOOP_TEST_S3=http://host:port with
PROOFLOOP_TEST_S3_ACCESS_KEY and PROOFLOOP_TEST_S3_SECRET_KEY.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject
from pika import BasicProperties, BlockingConnection, URLParameters

from proofloop.bus.topology import ROUTES, Topology
from tests.integration.ceph import ACCESS_KEY, SECRET_KEY, running_ceph
from tests.integration.containers import (
    MINIO_IMAGE,
    RABBITMQ_IMAGE,
    Container,
    container_tool,
    running,
)
from tests.integration.processes import START_S, answers, folder, free_ports
from tests.integration.rabbitmq import RABBITMQ, Broker, is_ready, running_rabbitmq
from tests.waiting import wait_until

CEPH_PROGRAMS = (
    "ceph",
    "ceph-mon",
    "ceph-osd",
    "ceph-authtool",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)


LISTED_S = 20.0
"""The management API lists a new connection within this time, also on a busy machine."""

ESTABLISHED = "01"
"""The kernel's number for an open TCP connection."""


@dataclass(frozen=True)
class S3:
    """A running S3 endpoint; `kill` and `start` are None for one that is not ours."""

    endpoint: str
    access_key: str
    secret_key: str
    tls_endpoint: str = ""
    """The same store by TLS, and the authority that its certificate is from; empty if we know of
    none.
    """

    authority: str = ""
    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None


@contextmanager
def found_broker() -> Iterator[Broker]:
    """A RabbitMQ broker."""
    if url := os.environ.get("PROOFLOOP_TEST_BROKER"):
        yield Broker(url)
        return
    if RABBITMQ.exists() or install("rabbitmq-server"):
        with folder("proofloop-rabbitmq-") as place, running_rabbitmq(place) as own:
            yield own
    else:
        with _rabbitmq_in_container(_container_tool("PROOFLOOP_TEST_BROKER")) as own:
            yield own


@contextmanager
def found_s3() -> Iterator[S3]:
    """An S3 store: Ceph's gateway, which remembers, checks signatures and honours If-None-Match."""
    if endpoint := os.environ.get("PROOFLOOP_TEST_S3"):
        yield S3(
            endpoint,
            os.environ["PROOFLOOP_TEST_S3_ACCESS_KEY"],
            os.environ["PROOFLOOP_TEST_S3_SECRET_KEY"],
        )
        return
    packages = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
    if all(map(shutil.which, CEPH_PROGRAMS)) or install(*packages):
        with folder("proofloop-ceph-") as place, own_s3(place) as own:
            yield own
    else:
        with _minio_in_container(_container_tool("PROOFLOOP_TEST_S3")) as own:
            yield own


@contextmanager
def own_servers(*, look_s: float = 5.0) -> Iterator[tuple[Broker, S3]]:
    """A broker, which counts its messages every `look_s` seconds, and a store for one benchmark."""
    with (
        folder("proofloop-rabbitmq-") as for_broker,
        folder("proofloop-ceph-") as for_store,
        running_rabbitmq(for_broker, look_s=look_s) as broker,
        own_s3(for_store) as s3,
    ):
        yield broker, s3


@contextmanager
def own_s3(place: Path) -> Iterator[S3]:
    """Ceph's gateway, started here."""
    with running_ceph(place) as ceph:
        yield S3(
            f"http://127.0.0.1:{ceph.rgw}",
            ACCESS_KEY,
            SECRET_KEY,
            f"https://127.0.0.1:{ceph.tls}",
            str(ceph.certificates.ca),
            kill=ceph.kill_gateway,
            start=ceph.start_gateway,
        )


def publish(url: str, queue: str, *bodies: bytes) -> None:
    """Put messages straight into a queue; they are there when it returns.

    Confirmed: RabbitMQ 3.10 was seen to lose what it took for a quorum queue from a channel that
    was then closed.
    """
    with BlockingConnection(URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", queue, body, BasicProperties(delivery_mode=2), mandatory=True)


def taken_from(url: str, queue: str) -> Iterator[tuple[BasicProperties, bytes]]:
    """Each message that is ready in a queue, once; they stay there when the last was taken."""
    with BlockingConnection(URLParameters(url)) as connection:
        channel = connection.channel()
        while (message := channel.basic_get(queue))[0] is not None:
            yield message[1], message[2]


@contextmanager
def idle_consumer(url: str, queue: str) -> Iterator[None]:
    """A worker of this queue that handles nothing."""
    with BlockingConnection(URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, on_message_callback=lambda *message: None)
        yield


def cut_connections(broker: Broker) -> int:
    """Close every connection to the broker; returns their number. Skips without its management API.

    The management learns of new connections every five seconds: wait until it lists this machine's.
    """
    if not broker.api:
        pytest.skip("the broker's management API is not known")
    port = URLParameters(broker.url).port
    wait_until(lambda: client_ports(port) <= listed_connections(broker).keys(), LISTED_S)
    names = listed_connections(broker).values()
    for name in names:
        httpx.delete(f"{broker.api}/api/connections/{quote(name, safe='')}", timeout=30.0)
    return len(names)


def listed_connections(broker: Broker) -> dict[int, str]:
    """The connections that the broker's management knows, by the clients' ports."""
    found = httpx.get(f"{broker.api}/api/connections", timeout=30.0).json()
    return {one["peer_port"]: one["name"] for one in found if "peer_port" in one}


def client_ports(server_port: int) -> set[int]:
    """The local ports of this machine's open connections to a server's port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1:4] for line in lines]
    return {
        int(here.rpartition(":")[2], 16)
        for here, there, state in ends
        if state == ESTABLISHED and int(there.rpartition(":")[2], 16) == server_port
    }


def delete_namespace(url: str, namespace: str) -> None:
    """Remove the exchanges and queues of one test from a broker."""
    connection = BlockingConnection(URLParameters(url))
    channel, topology = connection.channel(), Topology(namespace)
    for role in (*ROUTES, "audit", "nobody"):
        for queue in (topology.queue(role), topology.later_queue(role), topology.dead_queue(role)):
            channel.queue_delete(queue.name)
    for exchange in (topology.exchange, topology.dead_exchange):
        channel.exchange_delete(exchange.name)
    for suffix in (".pidbox", ".events"):  # Celery's, of each worker's control commands and events
        channel.exchange_delete(f"{namespace}{suffix}")
    connection.close()


@contextmanager
def s3_settings(s3: S3) -> Iterator[dict[str, str]]:
    """The settings of a store in a bucket with an unused prefix, which is emptied at the end."""
    with bucket_folder(s3) as (bucket, prefix):
        yield {
            "S3_ENDPOINT": s3.endpoint,
            "S3_BUCKET": bucket,
            "S3_PREFIX": prefix,
            "S3_ACCESS_KEY": s3.access_key,
            "S3_SECRET_KEY": s3.secret_key,
        }


@contextmanager
def bucket_folder(s3: S3) -> Iterator[tuple[str, str]]:
    """A bucket with an unused prefix, whose objects are deleted at the end."""
    client = client_of(s3)
    bucket, prefix = "proofloop-test", f"test-{uuid.uuid4().hex[:8]}"
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    yield bucket, prefix
    names = [
        DeleteObject(found.object_name)
        for found in client.list_objects(bucket, f"{prefix}/", recursive=True)
    ]
    assert list(client.remove_objects(bucket, names)) == []


def client_of(s3: S3) -> Minio:
    """A client of the server itself, without the store's ways."""
    host = s3.endpoint.partition("://")[2]
    return Minio(
        host,
        s3.access_key,
        s3.secret_key,
        secure=s3.endpoint.startswith("https"),
        region="us-east-1",
    )


def install(*packages: str) -> bool:
    """Install Debian packages, one process at a time; whether that could be done."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    with open(Path(tempfile.gettempdir(), "proofloop-apt.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for step in (["apt-get", "update", "-qq"], command):
            done = subprocess.run(step, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                warnings.warn(f"{' '.join(step)} failed: {done.stderr[-500:]}", stacklevel=2)
                return False
    return True


def _container_tool(variable: str) -> str:
    """docker or podman; skips the test where there is neither."""
    tool = container_tool()
    if tool is None:
        pytest.skip(
            f"no real server: apt could not install one, no docker or podman answers, {variable} is"
            " not set"
        )
    return tool


@contextmanager
def _rabbitmq_in_container(tool: str) -> Iterator[Broker]:
    amqp, api = free_ports(2)
    ports = {amqp: 5672, api: 15672}
    # RabbitMQ's own variable of this name is for command-line settings: four hours, in milliseconds
    environment = {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit consumer_timeout 14400000"}
    with running(tool, RABBITMQ_IMAGE, ports=ports, environment=environment) as container:
        user = "guest:guest@127.0.0.1"
        url, api_url = f"amqp://{user}:{amqp}/%2F", f"http://{user}:{api}"

        def start() -> None:
            container.start()
            wait_for_container("RabbitMQ", container, lambda: is_ready(api_url, url))

        start()
        yield Broker(url, api_url, kill=container.kill, start=start)


@contextmanager
def _minio_in_container(tool: str) -> Iterator[S3]:
    [port] = free_ports(1)
    own = S3(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)
    environment = {"MINIO_ROOT_USER": own.access_key, "MINIO_ROOT_PASSWORD": own.secret_key}
    with running(
        tool, MINIO_IMAGE, "server", "/data", ports={port: 9000}, environment=environment
    ) as container:
        live = f"{own.endpoint}/minio/health/live"
        wait_for_container("MinIO", container, lambda: answers(live))
        yield own


def wait_for_container(what: str, container: Container, is_ready: Callable[[], bool]) -> None:
    """Wait until the server in a container answers; raises with the end of its log."""
    if not wait_until(is_ready, START_S):
        raise RuntimeError(f"{what} did not start: {container.log()}")
