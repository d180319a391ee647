"""A real Prometheus for tests: Debian's, on loopback, with its data in a temporary folder."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.processes import answers, end, free_ports, wait_for_server
from tests.integration.servers import install

SCRAPE_S = 1
"""How often the targets are scraped and the rules evaluated."""

NAMESPACE = "maths"
"""Every target gets it as label `namespace`, as from the Prometheus Operator; it is the one of the
charts in tests.
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """The series of a query: labels, and points of time and value without those that are not
    numbers.
    """

    labels: Mapping[str, str]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Prometheus:
    url: str

    def series(self, query: str, start: float, end: float, step: float = SCRAPE_S) -> list[Series]:
        """The query over a stretch of time. Raises with Prometheus' words if it cannot be
        evaluated.
        """
        found = self._get("query_range", query=query, start=start, end=end, step=step)["result"]
        return [Series(one["metric"], _numbers(one["values"])) for one in found]

    def rules(self) -> dict[str, Any]:
        """Every alert rule by its name, with its state and health."""
        return {
            rule["name"]: rule for group in self._get("rules")["groups"] for rule in group["rules"]
        }

    def are_up(self) -> bool:
        targets = self._get("targets")["activeTargets"]
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def _get(self, page: str, **parameters: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{page}", params=parameters, timeout=20.0).json()
        assert answer["status"] == "success", answer
        return answer["data"]


def _numbers(values: list[tuple[float, str]]) -> tuple[Point, ...]:
    return tuple((at, float(value)) for at, value in values if math.isfinite(float(value)))


def promtool() -> str:
    """Prometheus' own tool for rules; skips the test where it can be had by no means."""
    if not (shutil.which("promtool") or install("prometheus")):
        pytest.skip("no promtool: it is not on PATH and apt could not install prometheus")
    return "promtool"


@contextmanager
def running_prometheus(
    folder: Path, targets: Mapping[str, str], rules: object = None
) -> Iterator[Prometheus]:
    """Scrapes `targets`, URLs by the label `pod`. Rules are groups as in a PrometheusRule."""
    promtool()
    [port] = free_ports(1)
    configuration = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(folder / "rules.json")],
        "scrape_configs": [_job(pod, url) for pod, url in targets.items()],
    }
    (folder / "rules.json").write_text(json.dumps(rules or {"groups": []}))  # JSON is YAML
    (folder / "prometheus.json").write_text(json.dumps(configuration))
    log = folder / "prometheus.log"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=folder, start_new_session=True
        )
    try:
        own = Prometheus(f"http://127.0.0.1:{port}")
        wait_for_server("Prometheus", lambda: answers(f"{own.url}/-/ready"), process, log)
        yield own
    finally:
        end(process)


def _job(pod: str, url: str) -> dict[str, Any]:
    place = httpx.URL(url)
    target = {
        "targets": [f"{place.host}:{place.port}"],
        "labels": {"namespace": NAMESPACE, "pod": pod},
    }
    return {"job_name": pod, "metrics_path": place.path, "static_configs": [target]}


def filled_in(query: str, namespace: str, window_s: float = 15) -> str:
    """A query of the dashboard with its variables: the broker's namespace, a window for rates,
    prices.
    """
    names = {
        "$namespace": NAMESPACE,
        "$queues": namespace,
        "$__rate_interval": f"{window_s:g}s",
        "$price_prompt": "0.3",
        "$price_completion": "1.2",
        "$price_engine_hour": "2.5",
    }
    for name, value in names.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def wait_for_alert(prometheus: Prometheus, alert: str, states: set[str], limit_s: float) -> str:
    """The state of an alert once it is one of these, or at the end of the patience."""
    deadline = time.monotonic() + limit_s
    while (
        state := str(prometheus.rules()[alert]["state"])
    ) not in states and time.monotonic() < deadline:
        time.sleep(0.2)
    return state
