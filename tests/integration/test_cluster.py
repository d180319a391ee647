"""Services on three RabbitMQ nodes, one of which is killed while they work: the others have what it
had.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proofloop.config.run_file import load_runspec
from proofloop.config.settings import load_settings
from proofloop.runs.planned import planned
from proofloop.schema import keys
from proofloop.schema.records import PIPELINE_ROLES, Label
from proofloop.store import get_record, open_store
from tests.integration.installation import Installation, installed
from tests.integration.processes import folder
from tests.integration.rabbitmq import RABBITMQ, Node, ask, running_cluster, wait_joined
from tests.integration.run_files import simulated_run
from tests.integration.servers import install
from tests.waiting import wait_until

SERVED = (*PIPELINE_ROLES, "verifier")
"""Two verifiers, and one of each other role."""

SETTLED_S = 4.0
"""A quorum queue that was declared less than about a second before its leader is killed can be
lost.
"""

LEASE_S = 60
"""How long a message waits whose call runs in a process that lost its connection."""

PART = 25
"""So many labels before the node is killed, and again before it comes back."""

RUN = simulated_run(
    "cluster",
    count=30,
    proofs_per_problem=4,
    settings="latency_s = 0.3",
    flow="max_waiting_proofs = 24",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Node]]:
    if not RABBITMQ.exists() and not install("rabbitmq-server"):
        pytest.skip(
            "no real server: apt could not install RabbitMQ, of which a cluster needs three"
        )
    with folder("proofloop-cluster-") as place, running_cluster(place) as nodes:
        yield nodes


@pytest.fixture
def on_cluster(cluster: list[Node], tmp_path: Path) -> Iterator[Installation]:
    """Services with a store on this machine; the node that looks at queues and cleans up is never
    killed.
    """
    with installed({"STORE": str(tmp_path / "store")}, cluster[-1].url, tmp_path) as one:
        yield one


@pytest.mark.slow
def test_nothing_is_lost_when_the_leader_of_the_queues_is_killed(
    cluster: list[Node], on_cluster: Installation
) -> None:
    killed, connected, _ = cluster
    on_cluster.environment["PROOFLOOP_BROKER"] = killed.url
    on_cluster.start("labeler")  # the leaders of queues lie on the node that declared them
    on_cluster.wait_ready("labeler")
    on_cluster.kill("labeler")
    on_cluster.environment["PROOFLOOP_BROKER"] = connected.url
    work_off(on_cluster, killed, cluster)


@pytest.mark.slow
def test_nothing_is_lost_when_the_node_is_killed_that_the_clients_are_connected_to(
    cluster: list[Node], on_cluster: Installation
) -> None:
    on_cluster.environment["PROOFLOOP_BROKER"] = ";".join(node.url for node in cluster)
    work_off(on_cluster, cluster[0], cluster)


def work_off(installation: Installation, killed: Node, cluster: list[Node]) -> None:
    """Let services work off a run while a node is killed and comes back; checks that nothing is
    lost or twice.
    """
    run, witness = installation.folder / "run.toml", cluster[-1]
    run.write_text(RUN)
    for role in SERVED:
        installation.start(role)
        installation.wait_ready(role)
    time.sleep(SETTLED_S)
    assert leaders(witness) == {killed.name}
    posing = installation.call("run", str(run))
    wait_for_labels(PART, installation, posing)
    killed.kill()
    wait_for_labels(len(labeled()) + PART, installation, posing)
    assert posing.poll() is None
    killed.start()
    proofs = [event.proof_id for event in planned(load_runspec(run), open_store(load_settings()))]
    wait_for_labels(len(proofs), installation, posing)
    assert posing.wait(60) == 0, installation.log()
    assert sorted(labeled()) == sorted(proofs)
    assert wait_until(
        lambda: not any(depth.ready + depth.later for depth in installation.letters.depths()),
        LEASE_S + 10,
    )
    assert not list(installation.letters.letters())
    wait_joined(cluster)


def wait_for_labels(count: int, installation: Installation, posing: subprocess.Popen[str]) -> None:
    """Wait as long as labels come and `proofloop run` does not fail."""
    seen, news_s = -1, time.monotonic()
    while (now := len(labeled())) < count:
        if now > seen:
            seen, news_s = now, time.monotonic()
        assert time.monotonic() < news_s + LEASE_S + 60, installation.log()
        assert not posing.poll(), installation.log()
        time.sleep(0.2)


def labeled() -> list[str]:
    """The proof of each label in the store."""
    store = open_store(load_settings())
    return [get_record(store, key, Label).proof_id for key in store.list(keys.labels("cluster"))]


def leaders(node: Node) -> set[str]:
    """The nodes that lead a quorum queue."""
    return {queue["leader"] for queue in ask(node, "queues") if queue["type"] == "quorum"}
