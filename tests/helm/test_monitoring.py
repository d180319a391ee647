"""Dashboard and alerts ask for metrics that exist, by labels they have; every alert has a line in
the runbook.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from proofloop.worker.metrics import WorkerMetrics
from tests.helm.chart import ROOT, Object, render, values_of

FOREIGN = {
    f"rabbitmq_queue_{figure}": {"queue"} for figure in ("messages", "messages_ready", "consumers")
}
"""Metrics of others: RabbitMQ's Prometheus plugin, per object."""

SCRAPED = {"namespace", "pod"}
"""Labels that the scrape adds."""

WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "unless", "label_replace"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def test_every_query_names_metrics_and_labels_that_exist() -> None:
    known = labels_of()
    for query in [*dashboard_queries(), *(rule["expr"] for rule in rules())]:
        metrics, labels = names_in(query)
        assert metrics and metrics <= set(known), query
        assert labels <= SCRAPED.union(*(known[name] for name in metrics)), query


def test_a_query_for_a_metric_that_is_gone_would_be_found() -> None:
    metrics, labels = names_in(
        'sum by (colour) (rate(proofloop_gone_total{namespace="n", shade=~"x"}[5m])) / 2'
    )
    assert metrics == {"proofloop_gone_total"} and labels == {"colour", "namespace", "shade"}


def test_the_dashboard_covers_what_an_operator_asks() -> None:
    titles = " ".join(panel["title"].lower() for panel in dashboard()["panels"])
    for word in (
        "queues",
        "wait",
        "engine",
        "tokens",
        "labels",
        "cost",
        "dead letters",
        "calls by version",
    ):
        assert word in titles
    places = [tuple(panel["gridPos"].values()) for panel in dashboard()["panels"]]
    assert len(set(places)) == len(places)


def test_the_picture_in_the_documentation_shows_every_panel() -> None:
    picture = (ROOT / "docs" / "images" / "dashboard.svg").read_text("utf-8")
    assert [
        panel["title"] for panel in dashboard()["panels"] if f">{panel['title']}<" not in picture
    ] == []


def test_every_alert_has_a_paragraph_in_the_runbook_and_points_to_it() -> None:
    docs = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    for rule in rules():
        heading, paragraph = f"### {rule['alert']}\n", docs.partition(f"### {rule['alert']}\n")[2]
        assert heading in docs
        words = " ".join(paragraph.partition("### ")[0].split())
        assert "Raise the" in words, rule["alert"]
        assert (
            rule["annotations"]["runbook_url"] == f"docs/how-to/alerts.md#{rule['alert'].lower()}"
        )


def test_the_runbook_names_no_alert_that_is_gone() -> None:
    documented = re.findall(
        r"^### (Proofloop\w+)$", (ROOT / "docs" / "how-to" / "alerts.md").read_text(), re.MULTILINE
    )
    assert documented == [rule["alert"] for rule in rules()]


@pytest.mark.parametrize(
    ("set_up", "port"), [("production", "prometheus"), ("tls", "prometheus-tls")]
)
def test_the_broker_of_the_chart_is_scraped_with_a_series_for_each_queue(
    set_up: str, port: str
) -> None:
    objects = render(values_of(set_up))
    [broker] = [
        one["metadata"]["name"] for one in objects.values() if one["kind"] == "RabbitmqCluster"
    ]
    spec = objects[f"ServiceMonitor/{broker}"]["spec"]
    # What the operator calls its Service.
    assert spec["selector"]["matchLabels"]["app.kubernetes.io/name"] == broker
    [endpoint] = spec["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port, "/metrics/per-object")


def test_the_thresholds_are_those_of_the_values() -> None:
    values: Object = {"monitoring": {"alerts": True, "thresholds": {"queueWaitSeconds": 77}}}
    (waits,) = [rule for rule in rules(values) if rule["alert"] == "ProofloopQueueWaits"]
    assert waits["expr"].endswith("> 77")


def test_a_role_that_may_sleep_while_some_messages_wait_is_not_away_with_so_few() -> None:
    values = values_of("production")
    values["roles"]["verifier"]["scaling"] = {"minReplicas": 0, "activation": 50}
    values["roles"]["generator"]["scaling"] = {"minReplicas": 1, "activation": 99}
    (away,) = [rule for rule in rules(values) if rule["alert"] == "ProofloopRoleWithoutWorkers"]
    assert "} > 50 unless " in away["expr"]


def rules(values: Object | None = None) -> list[Any]:
    found: list[Any] = render(values or values_of("production"))["PrometheusRule/proofloop"][
        "spec"
    ]["groups"][0]["rules"]
    return found


def dashboard() -> Any:
    text = render(values_of("production"))["ConfigMap/proofloop-dashboard"]["data"][
        "proofloop.json"
    ]
    return json.loads(text)


def dashboard_queries() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]


def labels_of() -> dict[str, set[str]]:
    """The labels of every series that a service exposes."""
    metrics = vars(WorkerMetrics()).values()
    ours = {
        f"{family.name}{suffix}": {*metric._labelnames, *(("le",) if suffix == "_bucket" else ())}
        for metric in metrics
        if hasattr(metric, "_labelnames")
        for family in metric.collect()
        for suffix in SUFFIXES[family.type]
    }
    return ours | FOREIGN


def names_in(query: str) -> tuple[set[str], set[str]]:
    """The metrics of a PromQL expression, and the labels it selects or groups by."""
    bare = re.sub(r'"[^"]*"', '""', query)
    grouped = re.findall(r"\bby \(([^)]*)\)", bare)
    selected = re.findall(r"\{([^}]*)\}", bare)
    labels = {name for group in [*grouped, *selected] for name in re.findall(r"[a-z_]+", group)}
    rest = re.sub(r"\bby \([^)]*\)|\{[^}]*\}|\[[^]]*\]|\$\w+|\d[\de.]*", " ", bare)
    made = set(re.findall(r'"(\w+)", "\$1"', query))  # by label_replace
    return set(re.findall(r"[a-z_]+", rest)) - WORDS, labels - made
