"""A role as a service: Celery's application, and the resources that a worker process opens before
it consumes.

`proofloop serve ROLE` and `celery -A proofloop.worker.service worker -Q NAMESPACE.ROLE -c 64` start
the same worker. Celery's other commands take the application too, such as `celery -A
proofloop.worker.service inspect active`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from proofloop.bus import START_S, check_broker, make_app, open_worker_bus
from proofloop.bus.tracing import tracing
from proofloop.config.settings import Settings, load_settings
from proofloop.errors import ConfigError
from proofloop.runs.budget import MarkGate
from proofloop.runs.flow import DEFAULT
from proofloop.schema.records import PIPELINE_ROLES
from proofloop.store import open_store
from proofloop.worker.calls.running_calls import leased_calls
from proofloop.worker.calls.usage import written_usage
from proofloop.worker.engine_pool import Engines
from proofloop.worker.health import Health, MonitoringServer
from proofloop.worker.logs import configure_logging
from proofloop.worker.metrics import WorkerMetrics
from proofloop.worker.roles import Role, load_role
from proofloop.worker.runtime import Worker
from proofloop.worker.sentry import start_sentry
from proofloop.worker.shutdown import Shutdown
from proofloop.worker.tools import Tools

if TYPE_CHECKING:
    from celery import Celery


class RoleService:
    """Store, engines, health page, metrics and traces of one role in this process."""

    def __init__(
        self,
        app: Celery,
        role: Role,
        concurrency: int,
        settings: Settings,
        store: Path | None,
        metrics_port: int,
    ) -> None:
        """Raises ConfigError, BusError, StoreError."""
        self.role, self.concurrency = role, concurrency
        self.grace_s, self._drain_s = settings.grace_s, settings.drain_s
        self.cancelling = threading.Event()
        self._closing = ExitStack()
        metrics, health = WorkerMetrics(), Health()
        if metrics_port:
            MonitoringServer(settings.metrics_host, metrics_port, metrics.registry, health)
        self.bus = open_worker_bus(
            settings, app, roles=[*PIPELINE_ROLES, role.name], connect_s=START_S
        )
        self._closing.callback(self.bus.close)
        check_broker(settings, role.name)
        span = self._closing.enter_context(tracing(f"proofloop-{role.name}"))
        self.store = open_store(settings, store)
        engines = Engines(self.store, settings.cache)
        self._closing.callback(engines.close)
        calls = self._closing.enter_context(leased_calls(self.store, self.bus.losses))
        self.tools = Tools(
            self.store,
            engines.of,
            metrics=metrics,
            span=span,
            shutdown=Shutdown(cancelling=self.cancelling),
            calls=calls,
        )
        self.tools.gate = MarkGate(self.store, self.tools.runs.spec)
        self._closing.enter_context(written_usage(self.store, self.tools.usage))
        Worker(role, self.bus, self.tools).start(concurrency=concurrency)
        health.watch(self.bus, self.store, self.stopping)

    @property
    def stopping(self) -> threading.Event:
        return self.tools.shutdown.stopping

    @property
    def drain_s(self) -> float:
        """0 for a process that stops by itself: it has no reason to wait for its calls."""
        return 0.0 if self.stop_reason else self._drain_s

    @property
    def stop_reason(self) -> str:
        """The reason why the process stopped by itself; empty after a requested stop."""
        return self.tools.shutdown.reason

    def ready(self) -> None:
        """Print one line of JSON."""
        about = {
            "ready": self.role.name,
            "concurrency": self.concurrency,
            "store": str(self.store),
            "pid": os.getpid(),
        }
        print(json.dumps(about), flush=True)

    def close(self) -> None:
        """Close in reverse order: engines before the bus, because the end of each call is still
        published.
        """
        self._closing.close()


def open_service(
    app: Celery,
    role: str,
    concurrency: int,
    *,
    store: Path | None = None,
    metrics_port: int | None = None,
) -> RoleService:
    """The service of an installed role; options come before settings. Raises ConfigError, BusError,
    StoreError.
    """
    loaded, settings = load_role(role), load_settings()
    port = settings.metrics_port if metrics_port is None else metrics_port
    return RoleService(app, loaded, checked_concurrency(loaded, concurrency), settings, store, port)


def checked_concurrency(role: Role, wanted: int | None) -> int:
    """The requested concurrency, or else the role's default. Raises ConfigError for a trainer with
    more than one: its steps follow one another.
    """
    if role.name == "trainer" and wanted not in (None, 1):
        raise ConfigError(
            f"--concurrency {wanted}: the trainer handles one message at a time",
            "set --concurrency to 1",
        )
    return wanted or DEFAULT.get(role.name, 1)


def _set_up_logging(loglevel: int | None = None, **_: object) -> None:
    """Send Celery's logs where ours go. Without `-l` Celery passes WARNING: then the setting
    counts.
    """
    if loglevel is None or loglevel == logging.WARNING:
        configure_logging(load_settings().log_level)
    else:
        configure_logging(logging.getLevelName(loglevel).lower())


try:
    start_sentry()  # before Celery's consumer is imported
    app = make_app(load_settings(), open_service, _set_up_logging)
except ConfigError as error:
    sys.exit(f"error: {error}")
