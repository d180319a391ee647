"""Real servers for tests: a RabbitMQ broker and an S3 store.

Taken from the environment if it names them, else started from installed programs, else installed by apt (as root on
Debian or Ubuntu), else run by Docker or podman, else the test is skipped with the reason. Own servers listen on private
ports, live in a temporary folder, and are gone at the end.

PROOFLOOP_TEST_BROKER=amqp://...  PROOFLOOP_TEST_S3=http://host:port with PROOFLOOP_TEST_S3_ACCESS_KEY and
PROOFLOOP_TEST_S3_SECRET_KEY.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject
from pika import BlockingConnection, URLParameters

from proofloop.bus.topology import ROUTES, Topology
from tests.integration.containers import MINIO_IMAGE, RABBITMQ_IMAGE, Container, container_tool, running

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The server itself; the one on PATH is a wrapper that changes the user."""

CEPH_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "radosgw", "radosgw-admin")

START_S = 90.0
"""How long a server may take on a busy machine; it is usually under ten seconds."""


@dataclass(frozen=True)
class Broker:
    """A running broker; `kill` and `start` are None for one that is not ours."""

    url: str
    api: str = ""
    """Its management API, with user and password; empty if we know of none."""

    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None


@dataclass(frozen=True)
class S3:
    """A running S3 endpoint."""

    endpoint: str
    access_key: str
    secret_key: str


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A RabbitMQ broker."""
    if url := os.environ.get("PROOFLOOP_TEST_BROKER"):
        yield Broker(url)
        return
    if RABBITMQ.exists() or _install("rabbitmq-server"):
        with _folder("proofloop-rabbitmq-") as folder, _rabbitmq(folder) as own:
            yield own
    else:
        with _rabbitmq_in_container(_container_tool("PROOFLOOP_TEST_BROKER")) as own:
            yield own


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 store: Ceph's gateway, which remembers, checks signatures and honours If-None-Match."""
    if endpoint := os.environ.get("PROOFLOOP_TEST_S3"):
        yield S3(endpoint, os.environ["PROOFLOOP_TEST_S3_ACCESS_KEY"], os.environ["PROOFLOOP_TEST_S3_SECRET_KEY"])
        return
    packages = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
    if all(map(shutil.which, CEPH_PROGRAMS)) or _install(*packages):
        with _folder("proofloop-ceph-") as folder, _ceph(folder) as own:
            yield own
    else:
        with _minio_in_container(_container_tool("PROOFLOOP_TEST_S3")) as own:
            yield own


def delete_namespace(url: str, namespace: str) -> None:
    """Remove the exchanges and queues of one test from a broker."""
    connection = BlockingConnection(URLParameters(url))
    channel, topology = connection.channel(), Topology(namespace)
    for role in (*ROUTES, "audit", "nobody"):
        for queue in (topology.queue(role), topology.later_queue(role), topology.dead_queue(role)):
            channel.queue_delete(queue)
    channel.exchange_delete(topology.exchange)
    channel.exchange_delete(topology.dead_exchange)
    connection.close()


@contextmanager
def bucket_folder(s3: S3) -> Iterator[tuple[str, str]]:
    """A bucket, and a prefix in it that nobody else uses; what lies there is removed at the end."""
    host = s3.endpoint.partition("://")[2]
    client = Minio(host, s3.access_key, s3.secret_key, secure=s3.endpoint.startswith("https"), region="us-east-1")
    bucket, prefix = "proofloop-test", f"test-{uuid.uuid4().hex[:8]}"
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    yield bucket, prefix
    names = [DeleteObject(found.object_name) for found in client.list_objects(bucket, f"{prefix}/", recursive=True)]
    assert list(client.remove_objects(bucket, names)) == []


def _install(*packages: str) -> bool:
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
        pytest.skip(f"no real server: apt could not install one, no docker or podman answers, {variable} is not set")
    return tool


@contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _rabbitmq_in_container(tool: str) -> Iterator[Broker]:
    amqp, api = free_ports(2)
    ports = {amqp: 5672, api: 15672}
    # RabbitMQ's own variable of this name is for command-line settings: four hours, in milliseconds
    environment = {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit consumer_timeout 14400000"}
    with running(tool, RABBITMQ_IMAGE, ports=ports, environment=environment) as container:

        def start() -> None:
            container.start()
            wait_for_container("RabbitMQ", container, f"http://127.0.0.1:{api}/api/overview")

        start()
        user = "guest:guest@127.0.0.1"
        yield Broker(f"amqp://{user}:{amqp}/%2F", f"http://{user}:{api}", container.kill, start)


@contextmanager
def _minio_in_container(tool: str) -> Iterator[S3]:
    [port] = free_ports(1)
    own = S3(f"http://127.0.0.1:{port}", "testaccesskey", "test-secret-key-0123456789")
    environment = {"MINIO_ROOT_USER": own.access_key, "MINIO_ROOT_PASSWORD": own.secret_key}
    with running(tool, MINIO_IMAGE, "server", "/data", ports={port: 9000}, environment=environment) as container:
        wait_for_container("MinIO", container, f"{own.endpoint}/minio/health/live")
        yield own


def wait_for_container(what: str, container: Container, url: str) -> None:
    """Wait until the server in a container answers; raises with the end of its log."""
    deadline = time.monotonic() + START_S
    while not _answers(url):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start: {container.log()}")
        time.sleep(0.2)


def wait_until(what: str, is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a server; raises with the end of its log if it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, verify=False).status_code < 500  # a TLS context takes 0.1 s to make
    except httpx.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """End a server with everything it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[Broker]:
    amqp, api, distribution, epmd = free_ports(4)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {api}\n"
        "consumer_timeout = 14400000\n"
    )
    (folder / "plugins").write_text("[rabbitmq_management].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_NODENAME": f"test{amqp}@localhost",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        log = folder / "server.log"
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [RABBITMQ], env=environment, stdout=file, stderr=file, cwd=folder, start_new_session=True
            )
        running.append(process)
        wait_until("RabbitMQ", lambda: _answers(f"http://127.0.0.1:{api}/api/overview"), process, log)

    def kill() -> None:
        _end(running.pop(), signal.SIGKILL)

    start()
    try:
        yield Broker(f"amqp://guest:guest@127.0.0.1:{amqp}/%2F", f"http://guest:guest@127.0.0.1:{api}", kill, start)
    finally:
        for process in running:
            _end(process)
        _end_epmd(epmd, environment)


def _end_epmd(port: int, environment: dict[str, str]) -> None:
    """Erlang's port mapper outlives its node; this one is ours alone."""
    subprocess.run(["epmd", "-port", str(port), "-kill"], env=environment, capture_output=True)


CEPH_CONF = """
[global]
fsid = 5d3b8a6e-6d0f-4c0e-9c1b-3c6e0a1b2c3d
mon_host = v1:127.0.0.1:{mon}
public_addr = 127.0.0.1
ms_bind_ipv4 = true
ms_bind_ipv6 = false
ms_bind_msgr2 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
run_dir = {folder}
log_file = {folder}/$name.log
admin_socket = {folder}/$name.asok
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = 8589934592
osd_memory_target = 939524096
bluestore_cache_size = 67108864
keyring = {folder}/keyring
[mon.a]
mon_addr = 127.0.0.1:{mon}
[client.admin]
keyring = {folder}/keyring
[client.rgw]
keyring = {folder}/keyring
rgw_frontends = beast endpoint=127.0.0.1:{rgw} tcp_nodelay=1
rgw_thread_pool_size = 64
[osd]
keyring = {folder}/osd/keyring
"""


@contextmanager
def _ceph(folder: Path) -> Iterator[S3]:
    mon, rgw = free_ports(2)
    conf, keyring, log = folder / "ceph.conf", folder / "keyring", folder / "output.log"
    conf.write_text(CEPH_CONF.format(folder=folder, mon=mon, rgw=rgw))
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    processes: list[subprocess.Popen[bytes]] = []

    def call(*command: object, text: str | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command], input=text, capture_output=True, text=True, timeout=START_S
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stderr[-1000:]}")
        return done.stdout

    def daemon(*command: object) -> subprocess.Popen[bytes]:
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [*map(str, command), "-c", str(conf), "-f"], stdout=file, stderr=file, start_new_session=True
            )
        processes.append(process)
        return process

    def ceph(*words: object, text: str | None = None) -> str:
        return call("ceph", "-c", conf, "--connect-timeout", "30", *words, text=text)

    try:
        for name, caps in (
            ("mon.", {"mon": "allow *"}),
            ("client.admin", dict.fromkeys(("mon", "osd", "mgr"), "allow *")),
        ):
            flags = [word for who, what in caps.items() for word in ("--cap", who, what)]
            create = [] if keyring.exists() else ["--create-keyring"]
            call("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *flags)
        call(
            "ceph-authtool",
            keyring,
            "--gen-key",
            "-n",
            "client.rgw",
            "--cap",
            "mon",
            "allow rw",
            "--cap",
            "osd",
            "allow rwx",
        )
        fsid = "5d3b8a6e-6d0f-4c0e-9c1b-3c6e0a1b2c3d"
        call("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{mon}]", "--fsid", fsid, folder / "monmap")
        call("ceph-mon", "--mkfs", "-i", "a", "-c", conf, "--monmap", folder / "monmap", "--keyring", keyring)
        daemon("ceph-mon", "-i", "a")
        secret = call("ceph-authtool", "--gen-print-key").strip()
        number = ceph("osd", "new", fsid, "-i", "-", text=f'{{"cephx_secret": "{secret}"}}').strip()
        call(
            "ceph-authtool", "--create-keyring", folder / "osd" / "keyring", "-n", f"osd.{number}", "--add-key", secret
        )
        call("ceph-osd", "-i", number, "-c", conf, "--mkfs", "--osd-uuid", fsid)
        daemon("ceph-osd", "-i", number)
        gateway = daemon("radosgw", "-n", "client.rgw")
        wait_until("radosgw", lambda: _answers(f"http://127.0.0.1:{rgw}/"), gateway, log)
        own = S3(f"http://127.0.0.1:{rgw}", "testaccesskey", "test-secret-key-0123456789")
        call(
            "radosgw-admin",
            "-c",
            conf,
            "-n",
            "client.rgw",
            "user",
            "create",
            "--uid",
            "test",
            "--display-name",
            "test",
            "--access-key",
            own.access_key,
            "--secret-key",
            own.secret_key,
            "--key-type=s3",
        )
        yield own
    finally:
        for process in reversed(processes):
            _end(process, signal.SIGKILL)
