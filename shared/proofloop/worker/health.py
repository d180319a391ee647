"""A service's HTTP endpoint: /metrics for Prometheus, /healthz and /readyz for Kubernetes or
another supervisor.

/healthz is 503 only if a restart helps. An unavailable broker or store is no reason to kill a
worker: it reconnects. /readyz is 503 while the service cannot work. Neither page waits for a
server: a separate thread checks the store periodically.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from proofloop.bus import Bus
from proofloop.errors import ConfigError, StoreError
from proofloop.schema import keys
from proofloop.store import Store
from proofloop.worker.listening import listen

log = structlog.get_logger()

CLIENT_TIMEOUT_S = 5.0
"""How long a client may take to send its request."""


@dataclass(frozen=True)
class CheckTimes:
    """The times of the store's check, in seconds."""

    interval_s: float = 5.0
    """The pause between two checks."""

    timeout_s: float = 15.0
    """A check that takes longer makes the service not ready until it ends."""


DEFAULT_TIMES = CheckTimes()


class Health:
    """Whether the process is alive and ready. It is "starting" until `watch` gives it a bus and a
    store.
    """

    def __init__(self, times: CheckTimes = DEFAULT_TIMES) -> None:
        self._times = times
        self._bus: Bus | None = None
        self._watch: threading.Thread | None = None
        self._store_problem = "the store has not been checked yet"
        self._checked_s = time.monotonic()
        self._stopping = threading.Event()

    def watch(self, bus: Bus, store: Store, stopping: threading.Event) -> None:
        """Check the store in a background thread until `stopping` is set."""
        self._watch = threading.Thread(
            target=self._check_store, args=(store,), name="store-watch", daemon=True
        )
        self._watch.start()
        self._bus, self._stopping = bus, stopping

    def broken(self) -> str:
        """Why only a restart helps; empty while the process is alive."""
        if self._bus is None or self._watch is None or self._stopping.is_set():
            return ""
        return self._bus.state().broken or (
            "" if self._watch.is_alive() else f"the thread {self._watch.name} ended"
        )

    def unready(self) -> str:
        """Why the process cannot handle messages now; empty while it can."""
        if self._bus is None:
            return "starting"
        if self._stopping.is_set():
            return "stopping"
        silent_s = time.monotonic() - self._checked_s
        is_slow = silent_s > self._times.interval_s + self._times.timeout_s
        slow = f"the store has not answered for {silent_s:.0f} s" if is_slow else ""
        return self.broken() or self._bus.state().unavailable or slow or self._store_problem

    def _check_store(self, store: Store) -> None:
        while not self._stopping.is_set():
            try:
                store.exists(keys.SPECS + "none")
                self._store_problem = ""
            except StoreError as error:
                self._store_problem = str(error)
            self._checked_s = time.monotonic()
            self._stopping.wait(self._times.interval_s)


class MonitoringServer:
    """Serves the three pages from a background thread until the process ends."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Raises ConfigError if the port cannot be used."""
        ProcessCollector(registry=registry)
        try:
            server = _Server(listen(host, port))
        except OSError as error:
            raise ConfigError(
                f"--metrics-port {port}: cannot listen on {host or 'all addresses'}:"
                f" {error.strerror or error}",
                "choose another port or PROOFLOOP_METRICS_HOST; 0 turns the endpoint off",
            ) from error
        server.registry, server.health = registry, health
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Server(ThreadingHTTPServer):
    """One thread for each connection: a slow client must not delay a probe."""

    registry: CollectorRegistry
    health: Health

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname(), _Pages, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


class _Pages(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._send(
                    HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.registry)
                )
            case "/healthz":
                self._send_status(self.server.health.broken())
            case "/readyz":
                self._send_status(self.server.health.unready())
            case _:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /healthz, /readyz\n")

    def _send_status(self, problem: str) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
        body = {"ok": not problem, **({"reason": problem} if problem else {})}
        self._send(status, "application/json", f"{json.dumps(body)}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: probes come every few seconds."""
