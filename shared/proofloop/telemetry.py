"""Logs and counters.

Logs are events with fields, pretty on a terminal and JSON otherwise, always on stderr; stdout is data.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from typing import Literal

import structlog

MetricName = Literal[
    "handled", "retried", "failed", "dead", "engine_calls", "engine_failures", "prompt_tokens", "completion_tokens"
]
"""Every counter there is; each is counted by role."""


def configure_logging(level: str) -> None:
    """Send structlog's events to stderr from this level on."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not pretty else structlog.processors.StackInfoRenderer(),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if pretty
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class Counters:
    """Thread-safe counters by role and name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, MetricName]] = Counter()

    def add(self, role: str, name: MetricName, amount: int = 1) -> None:
        with self._lock:
            self._counts[role, name] += amount

    def total(self, name: MetricName, role: str | None = None) -> int:
        with self._lock:
            return sum(count for (by, what), count in self._counts.items() if what == name and role in (None, by))
