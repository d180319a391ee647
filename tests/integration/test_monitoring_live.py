"""The dashboard's queries and the alerts on what real services and a real broker expose, by a real
Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pika import BlockingConnection, URLParameters
from prometheus_client.parser import text_string_to_metric_families

from proofloop.bus import open_bus
from proofloop.bus.topology import Topology
from proofloop.config.settings import load_settings
from tests.helm.chart import Object, values_of
from tests.helm.test_monitoring import SCRAPED, dashboard_queries, names_in, rules
from tests.integration.installation import Installation
from tests.integration.prometheus import Prometheus, filled_in, running_prometheus, wait_for_alert
from tests.integration.run_files import simulated_run
from tests.integration.servers import Broker, free_ports, publish
from tests.waiting import wait_until

ROLES = ("generator", "verifier", "meta_verifier", "labeler", "trainer")

RUN = simulated_run(
    "watched",
    count=12,
    proofs_per_problem=2,
    settings="latency_s = 0.4, malformed_share = 0.15, failure_share = 0.1, verifier_noise = 0.4",
)


@dataclass(frozen=True)
class Watched:
    """An installation whose pages are scraped, and since when."""

    installation: Installation
    pages: dict[str, str]
    prometheus: Prometheus
    began: float


@pytest.fixture
def watched(installation: Installation, broker: Broker, tmp_path: Path) -> Iterator[Watched]:
    if not broker.metrics:
        pytest.skip("this broker's page for Prometheus is not known")
    pages = {
        role: f"http://127.0.0.1:{port}/metrics"
        for role, port in zip(ROLES, free_ports(5), strict=True)
    }
    for role, page in pages.items():
        port = page.split(":")[2].removesuffix("/metrics")
        installation.start(role, "--metrics-port", port, concurrency=1 if role == "trainer" else 16)
    for role in ROLES:
        installation.wait_ready(role)
    pages["broker"] = broker.metrics
    with running_prometheus(tmp_path, pages, groups(installation)) as prometheus:
        assert wait_until(prometheus.are_up, 60)
        yield Watched(installation, pages, prometheus, time.time())


@pytest.mark.slow
def test_every_query_finds_what_it_asks_for_and_every_alert_can_be_evaluated(
    watched: Watched,
) -> None:
    installation, prometheus = watched.installation, watched.prometheus
    put_no_event_in_the_queue_of_the_verifier(installation)
    (installation.folder / "watched.toml").write_text(RUN)
    assert installation.call("run", str(installation.folder / "watched.toml")).wait(120) == 0, (
        installation.log()
    )

    exposed = labels_of(watched.pages)
    [group] = groups(installation)["groups"]
    queries = [*dashboard_queries(), *(rule["expr"] for rule in group["rules"])]
    for query in queries:
        metrics, labels = names_in(query)
        assert metrics and metrics <= set(exposed), query
        assert labels <= SCRAPED.union(*(exposed[name] for name in metrics)), query

    namespace = installation.environment["PROOFLOOP_NAMESPACE"]
    assert wait_until(lambda: empty(watched, namespace) == [], 60), empty(watched, namespace)
    assert wait_for_alert(prometheus, "ProofloopDeadLetters", {"firing"}, 20) == "firing"
    assert wait_for_alert(prometheus, "ProofloopAnswersUnreadable", {"pending"}, 20) == "pending"
    states = {name: (rule["health"], rule["state"]) for name, rule in prometheus.rules().items()}
    assert {health for health, _ in states.values()} == {"ok"}
    quiet = (
        "ProofloopBrokerUnavailable",
        "ProofloopQueueWaits",
        "ProofloopRoleWithoutWorkers",
        "ProofloopDeadLettersWait",
    )
    assert {states[name] for name in quiet} == {("ok", "inactive")}, states


@pytest.mark.slow
def test_a_role_without_pods_is_told_and_so_is_what_the_broker_gave_up(
    installation: Installation, broker: Broker, tmp_path: Path
) -> None:
    if not broker.metrics:
        pytest.skip("this broker's page for Prometheus is not known")
    open_bus(load_settings()).close(grace_s=5)  # makes the queues
    put_no_event_in_the_queue_of_the_verifier(installation)
    with running_prometheus(
        tmp_path, {"broker": broker.metrics}, groups(installation)
    ) as prometheus:
        assert (
            wait_for_alert(prometheus, "ProofloopRoleWithoutWorkers", {"pending"}, 40) == "pending"
        )
        [alert] = prometheus.rules()["ProofloopRoleWithoutWorkers"]["alerts"]
        assert (alert["labels"]["role"], alert["value"]) == ("verifier", "1e+00")
        assert wait_for_alert(prometheus, "ProofloopDeadLettersWait", {"pending"}, 0) == "inactive"
        assert wait_until(lambda: died_with_a_message_of_the_verifier(installation), 60)
        assert wait_for_alert(prometheus, "ProofloopDeadLettersWait", {"pending"}, 40) == "pending"
        [alert] = prometheus.rules()["ProofloopDeadLettersWait"]["alerts"]
        assert alert["labels"]["role"] == "verifier"
        assert (
            wait_for_alert(prometheus, "ProofloopRoleWithoutWorkers", {"inactive"}, 40)
            == "inactive"
        )


def groups(installation: Installation) -> Object:
    """The rules of a chart whose queues are named as those of this installation."""
    broker = {"namespace": installation.environment["PROOFLOOP_NAMESPACE"]}
    return {
        "groups": [
            {"name": "proofloop", "rules": rules(values_of("production") | {"broker": broker})}
        ]
    }


def empty(watched: Watched, namespace: str) -> list[str]:
    """The queries that gave no number at any time."""
    found = {
        query: watched.prometheus.series(filled_in(query, namespace), watched.began, time.time())
        for query in dashboard_queries()
    }
    return [query for query, series in found.items() if not any(one.points for one in series)]


def labels_of(pages: dict[str, str]) -> dict[str, set[str]]:
    """The labels of every sample that any page shows."""
    exposed: dict[str, set[str]] = {}
    for page in pages.values():
        for family in text_string_to_metric_families(httpx.get(page, timeout=10.0).text):
            for sample in family.samples:
                exposed.setdefault(sample.name, set()).update(sample.labels)
    return exposed


def put_no_event_in_the_queue_of_the_verifier(installation: Installation) -> None:
    """It becomes a dead letter."""
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue("verifier").name
    publish(installation.environment["PROOFLOOP_BROKER"], queue, b"no event")


def died_with_a_message_of_the_verifier(installation: Installation) -> bool:
    """Take a message and go away without a word, as a worker does that is killed; whether the
    broker gave one up.
    """
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue("verifier").name
    with BlockingConnection(
        URLParameters(installation.environment["PROOFLOOP_BROKER"])
    ) as connection:
        connection.channel().basic_get(queue)
    return sum(depth.dead for depth in installation.letters.depths()) > 0
