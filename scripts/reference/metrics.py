"""The metrics of a service, from its registry."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase
from scripts.reference.tables import table

from proofloop.worker.metrics import SECONDS, WorkerMetrics

BUILD_INFO = ("`proofloop_build_info`", "gauge", "version, python", "Always 1")


def sections() -> list[str]:
    rows = [
        (
            f"`{metric._name}{'_total' if metric._type == 'counter' else ''}`",
            metric._type,
            ", ".join(metric._labelnames),
            metric._documentation,
        )
        for metric in vars(WorkerMetrics()).values()
        if isinstance(metric, MetricWrapperBase)
    ]
    buckets = ", ".join(f"{bound:g}" for bound in SECONDS)
    return [
        table(("metric", "type", "labels", "meaning"), [*rows, BUILD_INFO]),
        f"Upper bounds of the histograms' buckets in seconds: {buckets}.",
    ]
