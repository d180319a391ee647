"""The metrics of a served model on Triton's metrics port. For one thread: see `model`."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from proofloop_serving.calls import Progress

COUNTERS = {
    "prompt_tokens": "Prompt tokens of answered calls",
    "cached_tokens": "Prompt tokens that came from the prompt cache",
    "completion_tokens": "Tokens sampled for answered calls",
}
GAUGES = {"running": "Running calls", "waiting": "Calls waiting for a place in the batch"}


class Metrics:
    """Metrics named proofloop_serving_..., labeled with the version. Triton requires families to
    outlive metrics.
    """

    def __init__(self, version: str) -> None:
        kinds = {name: (text, pb_utils.MetricFamily.COUNTER) for name, text in COUNTERS.items()}
        kinds |= {name: (text, pb_utils.MetricFamily.GAUGE) for name, text in GAUGES.items()}
        self._families = {
            name: pb_utils.MetricFamily(
                name=f"proofloop_serving_{name}{'_total' if name in COUNTERS else ''}",
                description=text,
                kind=kind,
            )
            for name, (text, kind) in kinds.items()
        }
        self._metrics: dict[str, Any] = {
            name: family.Metric(labels={"model_version": version})
            for name, family in self._families.items()
        }
        self._load = (-1, -1)

    def count(self, progress: Progress) -> None:
        self._metrics["prompt_tokens"].increment(len(progress.prompt_ids))
        self._metrics["cached_tokens"].increment(progress.cached_tokens)
        self._metrics["completion_tokens"].increment(len(progress.token_ids))

    def show_load(self, running: int, waiting: int) -> None:
        if (running, waiting) != self._load:
            self._load = (running, waiting)
            self._metrics["running"].set(running)
            self._metrics["waiting"].set(waiting)
