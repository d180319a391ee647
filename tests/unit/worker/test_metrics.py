"""Every metric is documented and bounded; health tells what is wrong; a log line says what it is
about.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_args

import pytest
import structlog
from prometheus_client.metrics import MetricWrapperBase

from proofloop.bus import ACK, DELIVERY_LIMIT, Delivery, LocalBus
from proofloop.errors import Reject, Retry, StoreError
from proofloop.method.prompts import Prompt
from proofloop.schema.events import ReviewJudged, encode
from proofloop.schema.ids import critique_name
from proofloop.schema.records import LabelKind, LabelOutcome, Verdict
from proofloop.schema.records import Role as RoleName
from proofloop.store import LocalStore
from proofloop.worker.calls.model_call import ModelCall
from proofloop.worker.calls.model_request import ModelRequest
from proofloop.worker.health import CheckTimes, Health
from proofloop.worker.metrics import OUTCOMES, VERDICTS, VERSIONS_KEPT, WorkerMetrics
from proofloop.worker.roles import Role
from proofloop.worker.runtime import COUNTED_AS, Worker
from proofloop.worker.tools import Tools
from tests.builders import PROOF, RUN, CountingEngine, workplace
from tests.waiting import wait_until

EVENT = ReviewJudged(run_id=RUN, proof_id=PROOF, index=0)


def test_the_name_of_a_metric_ends_in_its_unit() -> None:
    names = [
        metric._name + ("_total" if metric._type == "counter" else "")
        for metric in vars(WorkerMetrics()).values()
        if isinstance(metric, MetricWrapperBase)
    ]
    assert [
        name for name in names if not re.search(r"_(seconds|total|info|connected|in_work)$", name)
    ] == []


def test_only_the_last_used_versions_of_a_role_have_series() -> None:
    metrics = WorkerMetrics()
    for number in range(VERSIONS_KEPT + 3):
        metrics.count_answer(
            "verifier", f"v{number}", seconds=1.0, prompt=5, cached=2, completion=3
        )
        metrics.count_answer("generator", "g", seconds=1.0, prompt=5, cached=2, completion=3)
    (family,) = metrics.model.collect()
    seen = {sample.labels["model_version"]: sample.value for sample in family.samples}
    assert seen == {
        f"v{number}": float(number == VERSIONS_KEPT + 2) for number in range(3, VERSIONS_KEPT + 3)
    } | {"g": 1.0}
    assert metrics.total(metrics.prompt_tokens, role="verifier") == 5 * VERSIONS_KEPT
    assert metrics.total(metrics.cached_tokens, role="generator") == 2 * (VERSIONS_KEPT + 3)


def test_verdicts_are_counted_by_version_and_go_with_it() -> None:
    metrics = WorkerMetrics()
    for number in range(VERSIONS_KEPT + 1):
        metrics.count_verdict("verifier", f"v{number}", "truncated")
    seen = {
        tuple(sample.labels.values()): sample.value
        for sample in metrics.verdicts.collect()[0].samples
    }
    assert seen == {
        ("verifier", f"v{number}", outcome): float(outcome == "truncated")
        for number in range(1, VERSIONS_KEPT + 1)
        for outcome in VERDICTS
    }


def test_every_series_that_is_known_beforehand_begins_at_zero() -> None:
    """Otherwise its first event would be no increase, and no alert would see the first dead letter
    of a process.
    """
    metrics = WorkerMetrics()
    for role in get_args(RoleName):
        metrics.begin(role)
    counters = [
        metrics.messages,
        metrics.retries,
        metrics.dead_letters,
        metrics.labels,
        metrics.engine_failures,
    ]
    seen = [
        {tuple(sample.labels.values()): sample.value for sample in one.collect()[0].samples}
        for one in counters
    ]
    assert [set(values.values()) for values in seen] == [{0.0}] * 5
    assert [len(values) for values in seen] == [20, 20, 5, 9, 9]
    assert {outcome for outcome, _ in seen[3]} == set(get_args(LabelOutcome))
    assert {kind for _, kind in seen[3]} == set(get_args(LabelKind))
    assert set(OUTCOMES) == set(COUNTED_AS.values())
    assert set(VERDICTS) == set(get_args(Verdict.model_fields["outcome"].annotation))


def test_an_outage_is_warned_of_once_and_counted_for_each_message(tmp_path: Path) -> None:
    metrics = WorkerMetrics()

    def handler(event: ReviewJudged, tools: Tools):  # type: ignore[no-untyped-def]
        raise StoreError("no space left on device")
        yield

    tools = Tools(LocalStore(tmp_path), lambda *_: pytest.fail(), metrics=metrics)
    worker = Worker(Role("labeler", {"ReviewJudged": handler}), LocalBus(), tools)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            worker.process(Delivery(encode(EVENT)))
    assert [line["event"] for line in logs] == ["store_away"]
    assert metrics.total(metrics.retries, reason="store") == 3


@pytest.mark.usefixtures("quiet_log")
def test_every_outcome_is_counted(tmp_path: Path) -> None:
    raised: list[Exception | None] = [
        None,
        Retry("away"),
        StoreError("away"),
        ValueError("bug"),
        Reject("never"),
    ]
    metrics = WorkerMetrics()

    def handler(event: ReviewJudged, tools: Tools):  # type: ignore[no-untyped-def]
        if error := raised.pop(0):
            raise error
        yield from ()

    tools = Tools(LocalStore(tmp_path), lambda *_: pytest.fail(), metrics=metrics)
    worker = Worker(Role("labeler", {"ReviewJudged": handler}), LocalBus(), tools)
    for attempt in (1, 1, 1, DELIVERY_LIMIT, 1):
        worker.process(Delivery(encode(EVENT), attempt, published_s=time.time() - 3))
    worker.process(Delivery(b"no event"))
    outcomes = {
        kind: metrics.total(metrics.messages, outcome=kind)
        for kind in ("acked", "requeued", "failed", "dead")
    }
    assert outcomes == {"acked": 1, "requeued": 2, "failed": 1, "dead": 2}
    assert metrics.total(metrics.dead_letters, role="labeler") == 3
    assert (
        metrics.total(metrics.retries, reason="asked")
        == metrics.total(metrics.retries, reason="store")
        == 1
    )
    labels = {"role": "labeler", "event": "ReviewJudged"}
    assert metrics.registry.get_sample_value("proofloop_queue_wait_seconds_count", labels) == 5
    waited = metrics.registry.get_sample_value("proofloop_queue_wait_seconds_sum", labels)
    assert waited is not None and 15 <= waited < 16


def test_a_line_of_the_log_says_what_it_is_about_and_the_next_message_begins_afresh(
    tmp_path: Path,
) -> None:
    tools = workplace(tmp_path, CountingEngine())
    prompt = Prompt("Prove p1.", "0123456789ab")

    def handler(event: ReviewJudged, tools: Tools):  # type: ignore[no-untyped-def]
        if event.index == 0:
            ModelCall(
                ModelRequest(RUN, "verifier", "v-1", prompt, PROOF, critique_name(0)), tools
            ).reply()
        raise Retry("later")
        yield

    worker = Worker(Role("labeler", {"ReviewJudged": handler}), LocalBus(), tools)
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
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
        "import logging; from proofloop.worker.logs import configure_logging;"
        " configure_logging('info');"
        "logging.getLogger('urllib3').info('quiet'); logging.getLogger('amqp.x').warning('lost %s',"
        " 'it')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert (
        '"message": "lost it"' in line
        and '"library": "amqp.x"' in line
        and '"level": "warning"' in line
    )
    assert logging.getLogger().level == logging.WARNING


QUICK = CheckTimes(interval_s=0.02, timeout_s=0.2)


class Shelf(LocalStore):
    """A store that can be taken away."""

    problem = ""
    bug: Exception | None = None

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.answers = threading.Event()
        self.answers.set()

    def exists(self, key: str) -> bool:
        self.answers.wait()
        if self.bug:
            raise self.bug
        if self.problem:
            raise StoreError(self.problem)
        return super().exists(key)


def test_health_tells_what_is_wrong(tmp_path: Path) -> None:
    health, bus, store, stopping = Health(QUICK), LocalBus(), Shelf(tmp_path), threading.Event()
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


def test_a_store_that_says_nothing_at_all_is_no_reason_to_restart(tmp_path: Path) -> None:
    health, store = Health(QUICK), Shelf(tmp_path)
    health.watch(LocalBus(), store, threading.Event())
    wait_for(health, "")
    store.answers.clear()
    assert wait_until(lambda: health.unready().startswith("the store has not answered for "), 10), (
        health.unready()
    )
    assert health.broken() == ""
    store.answers.set()
    wait_for(health, "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_whose_store_check_ended_needs_a_restart(tmp_path: Path) -> None:
    health, store = Health(QUICK), Shelf(tmp_path)
    health.watch(LocalBus(), store, threading.Event())
    wait_for(health, "")
    store.bug = KeyError("a bug")
    wait_for(health, "the thread store-watch ended")
    assert health.broken() == "the thread store-watch ended"


def wait_for(health: Health, reason: str) -> None:
    assert wait_until(lambda: health.unready() == reason, 20), health.unready()
