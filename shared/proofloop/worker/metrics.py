"""All metrics: name, unit, labels and help. docs/reference/metrics.md is generated from them.

No label names a run, a problem or a proof, so a process has few series however much it handles.
Model versions are labels, but only the most recently used ones of each role.
"""

from __future__ import annotations

import platform
import threading
from collections import defaultdict
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from proofloop.version import __version__

VERSIONS_KEPT = 8
"""How many model versions of a role have series. The series of the least recently used version are
dropped.
"""

SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0)
"""Upper bounds of the histogram buckets in seconds: from a store lookup to the longest proof."""

OUTCOMES = ("acked", "requeued", "failed", "dead")
RETRIES = ("asked", "store", "broker", "failure")
ENGINE_FAILURES = ("refused", "away", "unusable")
VERDICTS = ("valid", "malformed", "truncated", "engine_failed")
LABELS = (
    ("rejected", "rejected_upheld"),
    ("accepted", "accepted"),
    ("accepted", "overturned"),
    ("undecided", "undecided"),
    ("unreadable", "unreadable"),
    ("accepted", "graded"),
    ("rejected", "graded"),
    ("undecided", "graded"),
    ("outranked", "outranked"),
)
"""All values of the metrics' labels, so that their series can start at 0."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # it would double the number of series


class WorkerMetrics:
    """The metrics of one process, in a separate registry. Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        seconds = partial(Histogram, registry=registry, buckets=SECONDS)
        of_version = ("role", "model_version")
        self.queue_wait = seconds(
            "proofloop_queue_wait_seconds",
            "From when a message could be delivered to its handling",
            ("role", "event"),
        )
        self.handling = seconds(
            "proofloop_handling_seconds",
            "Handling of a message, its engine calls included",
            ("role", "event", "outcome"),
        )
        self.messages = counter(
            "proofloop_messages_total",
            "Handled messages; outcome: acked, requeued, failed or dead",
            ("role", "outcome"),
        )
        self.retries = counter(
            "proofloop_retries_total",
            "Messages put back; reason: asked, store, broker or failure",
            ("role", "reason"),
        )
        self.dead_letters = counter("proofloop_dead_letters_total", "Messages given up", ("role",))
        self.in_work = gauge("proofloop_messages_in_work", "Messages being handled now", ("role",))
        self.broker_connected = gauge(
            "proofloop_broker_connected",
            "1 while the broker delivers to this process, else 0",
            ("role",),
        )
        self.engine_time = seconds(
            "proofloop_engine_seconds", "Engine time of an answered call", of_version
        )
        self.engine_calls = counter(
            "proofloop_engine_calls_total", "Answered engine calls", of_version
        )
        self.engine_failures = counter(
            "proofloop_engine_failures_total",
            "Engine calls without an answer; reason: refused (this call), away or unusable (all"
            " calls)",
            ("role", "reason"),
        )
        self.prompt_tokens = counter(
            "proofloop_prompt_tokens_total", "Tokens of the prompts", of_version
        )
        self.cached_tokens = counter(
            "proofloop_cached_tokens_total",
            "Tokens of the prompts that the engine had cached",
            of_version,
        )
        self.completion_tokens = counter(
            "proofloop_completion_tokens_total", "Tokens of the answers", of_version
        )
        self.verdicts = counter(
            "proofloop_verdicts_total",
            "Answers by outcome: valid, malformed, truncated or engine_failed",
            (*of_version, "outcome"),
        )
        self.labels = counter(
            "proofloop_labels_total",
            "Labels written, each once in all processes",
            ("outcome", "kind"),
        )
        self.model = gauge(
            "proofloop_model_info",
            "1 for the version that the role used last, 0 for earlier ones",
            of_version,
        )
        build = gauge("proofloop_build_info", "Always 1", ("version", "python"))
        build.labels(__version__, platform.python_version()).set(1)
        self._by_version = (
            self.engine_time,
            self.engine_calls,
            self.prompt_tokens,
            self.cached_tokens,
            self.completion_tokens,
            self.model,
        )
        self._lock = threading.Lock()
        self._versions: dict[str, list[str]] = defaultdict(list)

    def begin(self, role: str) -> None:
        """Create the role's counters at 0: Prometheus sees no increase in a counter that first
        appears as 1.
        """
        for outcome in OUTCOMES:
            self.messages.labels(role, outcome)
        for reason in RETRIES:
            self.retries.labels(role, reason)
        self.dead_letters.labels(role)
        if role == "labeler":
            for outcome, kind in LABELS:
                self.labels.labels(outcome, kind)
        elif role != "trainer":
            for reason in ENGINE_FAILURES:
                self.engine_failures.labels(role, reason)

    def count_verdict(self, role: str, version: str, outcome: str) -> None:
        self._use(role, version)
        self.verdicts.labels(role, version, outcome).inc()

    def count_answer(
        self, role: str, version: str, *, seconds: float, prompt: int, cached: int, completion: int
    ) -> None:
        """Count an answered engine call: its time in the engine and its tokens."""
        self._use(role, version)
        self.engine_calls.labels(role, version).inc()
        self.engine_time.labels(role, version).observe(seconds)
        self.prompt_tokens.labels(role, version).inc(prompt)
        self.cached_tokens.labels(role, version).inc(cached)
        self.completion_tokens.labels(role, version).inc(completion)

    def total(self, counter: Counter, **labels: str) -> int:
        """The sum of a counter over all series with these labels."""
        samples = (sample for metric in counter.collect() for sample in metric.samples)
        return int(
            sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
        )

    def _use(self, role: str, version: str) -> None:
        """Mark the version as the role's current one; drop the least recently used version if there
        are too many.
        """
        with self._lock:
            versions = self._versions[role]
            if versions and versions[-1] == version:
                return
            if version in versions:
                versions.remove(version)
            if versions:
                self.model.labels(role, versions[-1]).set(0)
            versions.append(version)
            self.model.labels(role, version).set(1)
            for outcome in VERDICTS:
                self.verdicts.labels(role, version, outcome)
            if len(versions) > VERSIONS_KEPT:
                oldest = versions.pop(0)
                for metric in self._by_version:
                    metric.remove(role, oldest)
                for outcome in VERDICTS:
                    self.verdicts.remove(role, oldest, outcome)
