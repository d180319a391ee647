"""RabbitMQ nodes of our own, started without systemd: one, or three as a cluster.

A node listens on loopback only and lives in a folder of its own. A test may kill it and start it
again; at the end it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pika import BlockingConnection, URLParameters
from pika.exceptions import AMQPConnectionError

from tests.integration.certificates import Certificates, make_certificates
from tests.integration.processes import START_S, answers, end, free_ports, wait_for_server
from tests.waiting import wait_until

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The server itself; the one on PATH is a wrapper that changes the user."""

LOOKS = ("collect_statistics_interval", "quorum_tick_interval")
"""What times the counts of the management API; the second can only be set for the Erlang node."""

CONFIGURATION = """
listeners.tcp.1 = 127.0.0.1:{ports.amqp}
listeners.ssl.1 = 127.0.0.1:{ports.tls}
ssl_options.cacertfile = {certificates.ca}
ssl_options.certfile = {certificates.certificate}
ssl_options.keyfile = {certificates.key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports.api}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {ports.metrics}
consumer_timeout = 14400000
"""

PORT_MAPPER_TRIES = 25
"""It takes Erlang's port mapper a moment to notice that a node was killed."""

CLUSTER_SIZE = 3
"""The fewest nodes of which one may be away: a quorum queue needs a majority."""


@dataclass(frozen=True)
class Broker:
    """A running broker; `kill` and `start` are None for one that is not ours."""

    url: str
    api: str = ""
    """Its management API, with user and password; empty if we know of none."""

    metrics: str = ""
    """Where it answers Prometheus, with a series for each queue; empty if we know of none."""

    tls_url: str = ""
    """The same broker by TLS, and the authority that its certificate is from; empty if we know of
    none.
    """

    authority: str = ""
    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None


@dataclass(frozen=True)
class Ports:
    """Where a node listens, and where Erlang's port mapper does, which the nodes of a cluster
    share.
    """

    amqp: int
    tls: int
    api: int
    metrics: int
    distribution: int
    epmd: int


@dataclass
class Node:
    """A RabbitMQ node and its process, if it runs."""

    folder: Path
    name: str
    ports: Ports
    certificates: Certificates
    configuration: str = CONFIGURATION
    look_s: float = 5.0
    inside: Sequence[str] = ()
    """What comes before each of the node's commands: another system's `chroot`."""

    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def launch(self) -> None:
        """Start the server and do not wait for it."""
        self.folder.mkdir(exist_ok=True)
        text = self.configuration.format(ports=self.ports, certificates=self.certificates)
        (self.folder / "rabbitmq.conf").write_text(text)
        (self.folder / "plugins").write_text("[rabbitmq_management,rabbitmq_prometheus].\n")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, RABBITMQ],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert self.process is not None
        wait_for_server("RabbitMQ", lambda: is_ready(self.api, self.url), self.process, self.log)

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            end(self.process, number)
            self.process = None

    def end_port_mapper(self) -> None:
        """Erlang's port mapper outlives its nodes, and refuses to end while it takes one for
        living.
        """
        command = [*self.inside, "epmd", "-port", str(self.ports.epmd), "-kill"]
        for _ in range(PORT_MAPPER_TRIES):
            if subprocess.run(command, env=self.environment, capture_output=True).returncode == 0:
                return
            time.sleep(0.2)

    def crash(self) -> str:
        """What it logged of the first part that crashed; its clients see errors then, for no fault
        of theirs. Empty if none did.
        """
        log = Path(self.folder, "log", f"{self.name}.log")
        text = log.read_text(errors="replace") if log.exists() else ""
        _, mark, report = text.partition("CRASH REPORT")
        return f"{mark}{report[:1500]}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.ports.amqp}/%2F"

    @property
    def tls_url(self) -> str:
        return f"amqps://guest:guest@127.0.0.1:{self.ports.tls}/%2F"

    @property
    def api(self) -> str:
        return f"http://guest:guest@127.0.0.1:{self.ports.api}"

    @property
    def broker(self) -> Broker:
        return Broker(
            self.url,
            self.api,
            f"http://127.0.0.1:{self.ports.metrics}/metrics/per-object",
            self.tls_url,
            str(self.certificates.ca),
            kill=self.kill,
            start=self.start,
        )

    @property
    def environment(self) -> dict[str, str]:
        looks = "".join(f" -rabbit {name} {1000 * self.look_s:.0f}" for name in LOOKS)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none"
            f" -kernel inet_dist_use_interface {{127,0,0,1}}{looks}",
        }


def is_ready(api: str, url: str) -> bool:
    """Whether a broker takes clients: its management API answers before the listeners are open."""
    if not answers(f"{api}/api/overview"):
        return False
    try:
        BlockingConnection(URLParameters(url)).close()
    except AMQPConnectionError:
        return False
    return True


@contextmanager
def running_node(
    folder: Path,
    configuration: str = CONFIGURATION,
    *,
    look_s: float = 5.0,
    inside: Sequence[str] = (),
) -> Iterator[Node]:
    """A node of our own, listening with and without TLS.

    `look_s`: how often it counts its messages for the management API; the default is its own.
    """
    ports = draw_ports(*free_ports(1))
    node = Node(
        folder,
        f"test{ports.amqp}@localhost",
        ports,
        make_certificates(folder),
        configuration,
        look_s,
        inside,
    )
    try:
        node.start()
        yield node
    finally:
        node.end()
        node.end_port_mapper()
        if crash := node.crash():
            warnings.warn(f"RabbitMQ had a crash: {crash}", stacklevel=2)


@contextmanager
def running_rabbitmq(folder: Path, *, look_s: float = 5.0) -> Iterator[Broker]:
    """A broker of our own, as the fixture gives it."""
    with running_node(folder, look_s=look_s) as node:
        yield node.broker


@contextmanager
def running_cluster(folder: Path) -> Iterator[list[Node]]:
    """Nodes that replicate each other's quorum queues: any one of them may be killed."""
    certificates = make_certificates(folder)
    [epmd] = free_ports(1)
    names = [f"node{number}-{epmd}@localhost" for number in range(CLUSTER_SIZE)]
    configuration = CONFIGURATION + peers(names)
    nodes = [
        Node(folder / name, name, draw_ports(epmd), certificates, configuration) for name in names
    ]
    try:
        for node in nodes:
            write_cookie(node.folder)
            node.launch()
        for node in nodes:
            node.wait_ready()
        wait_joined(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.kill()  # one after the other they would wait for each other
        nodes[0].end_port_mapper()


def draw_ports(epmd: int) -> Ports:
    """Free ports for a node, and the port mapper's."""
    amqp, tls, api, metrics, distribution = free_ports(5)
    return Ports(amqp, tls, api, metrics, distribution, epmd)


def peers(names: Sequence[str]) -> str:
    """The part of the configuration by which each node finds the others when it starts for the
    first time.
    """
    lines = [
        f"cluster_formation.classic_config.nodes.{number} = {name}"
        for number, name in enumerate(names, 1)
    ]
    return "\n".join(["cluster_formation.peer_discovery_backend = classic_config", *lines, ""])


def write_cookie(folder: Path) -> None:
    """The secret by which Erlang nodes let each other in."""
    folder.mkdir(exist_ok=True)
    cookie = folder / ".erlang.cookie"
    cookie.write_text("PROOFLOOPTEST")
    cookie.chmod(0o400)


def wait_joined(nodes: Sequence[Node]) -> None:
    """Wait until each node sees all of them running."""
    are_joined = wait_until(
        lambda: all(count_running(node) == len(nodes) for node in nodes), START_S, pause_s=0.2
    )
    assert are_joined, [node.log.read_text(errors="replace")[-1000:] for node in nodes]


def count_running(node: Node) -> int:
    """How many nodes of its cluster a node sees running."""
    return sum(one.get("running", False) for one in ask(node, "nodes"))


def ask(node: Node, path: str) -> Any:
    """What a node's management API says."""
    answer = httpx.get(f"{node.api}/api/{path}", timeout=10.0)
    answer.raise_for_status()
    return answer.json()
