"""Every metric is documented and bounded; health tells what is wrong; a log line says what it is about."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog
from prometheus_client.metrics import MetricWrapperBase

from proofloop.asking import Asked, Question
from proofloop.bus import ACK, DELIVERY_LIMIT, Delivery, LocalBus
from proofloop.endpoint import Health
from proofloop.errors import Reject, Retry, StoreError
from proofloop.messages import ReviewJudged, encode
from proofloop.metrics import VERSIONS_KEPT, Metrics
from proofloop.prompts import Prompt
from proofloop.runtime import Role, Tools, Worker
from proofloop.store import LocalStore
from tests.builders import PROOF, RUN, CountingEngine, workplace

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
EVENT = ReviewJudged(run_id=RUN, proof_id=PROOF, index=0)


def test_the_table_in_the_documentation_is_what_is_exposed() -> None:
    metrics = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    exposed = {
        metric._name + ("_total" if metric._type == "counter" else ""): (
            metric._type,
            ", ".join(metric._labelnames),
            metric._documentation,
        )
        for metric in metrics
    }
    rows = re.findall(r"^\| `(proofloop_\w+)` \| (\w+) \| ([\w, ]*) \| (.+) \|$", OPERATIONS.read_text(), re.MULTILINE)
    assert {name: (kind, labels, text) for name, kind, labels, text in rows} == exposed | {
        "proofloop_build_info": ("gauge", "version, python", "Always 1")
    }
    assert all(re.search(r"_(seconds|total|info|connected|in_work)$", name) for name in exposed)


def test_only_the_last_used_versions_of_a_role_have_series() -> None:
    metrics = Metrics()
    for number in range(VERSIONS_KEPT + 3):
        metrics.count_answer("verifier", f"v{number}", seconds=1.0, prompt=5, cached=2, completion=3)
        metrics.count_answer("generator", "g", seconds=1.0, prompt=5, cached=2, completion=3)
    (family,) = metrics.model.collect()
    seen = {sample.labels["model_version"]: sample.value for sample in family.samples}
    assert seen == {f"v{number}": float(number == VERSIONS_KEPT + 2) for number in range(3, VERSIONS_KEPT + 3)} | {
        "g": 1.0
    }
    assert metrics.total(metrics.prompt_tokens, role="verifier") == 5 * VERSIONS_KEPT
    assert metrics.total(metrics.cached_tokens, role="generator") == 2 * (VERSIONS_KEPT + 3)


@pytest.mark.usefixtures("quiet_log")
def test_every_outcome_is_counted(tmp_path: Path) -> None:
    raised: list[Exception | None] = [None, Retry("away"), StoreError("away"), ValueError("bug"), Reject("never")]
    metrics = Metrics()

    def handler(event: ReviewJudged, tools: Tools):  # type: ignore[no-untyped-def]
        if error := raised.pop(0):
            raise error
        yield from ()

    tools = Tools(LocalStore(tmp_path), lambda _: pytest.fail(), metrics)
    worker = Worker(Role("labeler", {"ReviewJudged": handler}), LocalBus(), tools)
    for attempt in (1, 1, 1, DELIVERY_LIMIT, 1):
        worker.process(Delivery(encode(EVENT), attempt, published_s=time.time() - 3))
    worker.process(Delivery(b"no event"))
    outcomes = {kind: metrics.total(metrics.messages, outcome=kind) for kind in ("acked", "requeued", "failed", "dead")}
    assert outcomes == {"acked": 1, "requeued": 2, "failed": 1, "dead": 2}
    assert metrics.total(metrics.dead_letters, role="labeler") == 3
    assert metrics.total(metrics.retries, reason="asked") == metrics.total(metrics.retries, reason="store") == 1
    labels = {"role": "labeler", "event": "ReviewJudged"}
    assert metrics.registry.get_sample_value("proofloop_queue_wait_seconds_count", labels) == 5
    waited = metrics.registry.get_sample_value("proofloop_queue_wait_seconds_sum", labels)
    assert waited is not None and 15 <= waited < 16


def test_a_line_of_the_log_says_what_it_is_about_and_the_next_message_begins_afresh(tmp_path: Path) -> None:
    tools = workplace(tmp_path, CountingEngine())
    prompt = Prompt("Prove p1.", "0123456789ab")

    def handler(event: ReviewJudged, tools: Tools):  # type: ignore[no-untyped-def]
        if event.index == 0:
            Asked(Question(RUN, "verifier", "v-1", prompt, PROOF, "critique-0"), tools).answer()
        raise Retry("later")
        yield

    worker = Worker(Role("labeler", {"ReviewJudged": handler}), LocalBus(), tools)
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        worker.process(Delivery(encode(EVENT), 2))
        worker.process(Delivery(encode(EVENT.model_copy(update={"index": 1}))))
    about = {"run": RUN, "proof": PROOF, "role": "labeler", "event": "message_postponed"}
    assert [about.items() <= line.items() for line in lines] == [True, True]
    assert [(line["message"], line["attempt"], line.get("model")) for line in lines] == [
        (f"ReviewJudged/{RUN}/{PROOF}/0", 2, "v-1"),
        (f"ReviewJudged/{RUN}/{PROOF}/1", 1, None),
    ]


def test_what_a_library_warns_of_is_a_line_like_any_other() -> None:
    code = (
        "import logging; from proofloop.telemetry import configure_logging; configure_logging('info');"
        "logging.getLogger('urllib3').info('quiet'); logging.getLogger('pika.x').warning('lost %s', 'it')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert '"said": "lost it"' in line and '"library": "pika.x"' in line and '"level": "warning"' in line
    assert logging.getLogger().level == logging.WARNING


class Shelf(LocalStore):
    """A store that can be taken away."""

    problem = ""

    def exists(self, key: str) -> bool:
        if self.problem:
            raise StoreError(self.problem)
        return super().exists(key)


def test_health_tells_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proofloop.endpoint.LOOK_S", 0.02)
    health, bus, store, stopping = Health(), LocalBus(), Shelf(tmp_path), threading.Event()
    assert (health.broken(), health.unready()) == ("", "starting")
    bus.serve("labeler", ["ReviewJudged"], lambda delivery: ACK, concurrency=1)
    health.watch(bus, store, stopping)
    wait_for(health, "")
    store.problem = "s3 is away"
    wait_for(health, "s3 is away")
    assert health.broken() == ""
    store.problem = ""
    wait_for(health, "")
    bus.close()
    assert health.broken() == health.unready() == "the bus is closed"
    stopping.set()
    assert (health.broken(), health.unready()) == ("", "stopping")


def wait_for(health: Health, reason: str) -> None:
    deadline = time.monotonic() + 5
    while health.unready() != reason:
        assert time.monotonic() < deadline, health.unready()
        time.sleep(0.01)
