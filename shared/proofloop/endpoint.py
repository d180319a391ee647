"""What a service says of itself over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever runs it.

/healthz is 503 only where a restart helps: a broker or a store that is away is no reason to kill a worker, which comes
back by itself. /readyz is 503 while it cannot work. Neither ever waits for a server: a thread of its own looks at the
store now and then.
"""

from __future__ import annotations

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from proofloop import keys
from proofloop.bus import Bus
from proofloop.errors import ConfigError, StoreError
from proofloop.store import Store

log = structlog.get_logger()

LOOK_S = 5.0
"""How often the store is looked at."""

SLOW_S = 15.0
"""A look that takes longer counts as no answer, until it comes."""

CLIENT_S = 5.0
"""How long a client may take to say what it wants."""


class Health:
    """Whether the process lives and can work. It begins as "starting"; `watch` gives it what to look at."""

    def __init__(self) -> None:
        self._bus: Bus | None = None
        self._watch: threading.Thread | None = None
        self._store_problem = "the store has not been looked at yet"
        self._looked_s = time.monotonic()
        self._stopping = threading.Event()

    def watch(self, bus: Bus, store: Store, stopping: threading.Event) -> None:
        self._watch = threading.Thread(target=self._look, args=(store,), name="store-watch", daemon=True)
        self._watch.start()
        self._bus, self._stopping = bus, stopping

    def broken(self) -> str:
        """Why only a restart helps; empty while the process lives."""
        if self._bus is None or self._watch is None or self._stopping.is_set():
            return ""
        return self._bus.state().broken or ("" if self._watch.is_alive() else f"the thread {self._watch.name} ended")

    def unready(self) -> str:
        """Why the process does not work on messages now; empty while it does."""
        if self._bus is None:
            return "starting"
        if self._stopping.is_set():
            return "stopping"
        silent_s = time.monotonic() - self._looked_s
        slow = f"the store has not answered for {silent_s:.0f} s" if silent_s > LOOK_S + SLOW_S else ""
        return self.broken() or self._bus.state().away or slow or self._store_problem

    def _look(self, store: Store) -> None:
        while not self._stopping.is_set():
            try:
                store.exists(keys.SPECS + "none")
                self._store_problem = ""
            except StoreError as error:
                self._store_problem = str(error)
            self._looked_s = time.monotonic()
            self._stopping.wait(LOOK_S)


class Endpoint:
    """Serves the three pages from a thread of its own, until the process ends."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Raises ConfigError when the port cannot be had."""
        ProcessCollector(registry=registry)
        try:
            server = _Server((host, port), _Pages)
        except OSError as error:
            raise ConfigError(
                f"--metrics-port {port}: {host} cannot be listened on: {error.strerror or error}",
                "choose another port or PROOFLOOP_METRICS_HOST; 0 turns the endpoint off",
            ) from error
        server.registry, server.health = registry, health
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Server(ThreadingMixIn, HTTPServer):
    """A slow client must hold no probe up: each connection has its thread."""

    daemon_threads = True
    registry: CollectorRegistry
    health: Health


class _Pages(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_S

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._send(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
            case "/healthz":
                self._say(self.server.health.broken())
            case "/readyz":
                self._say(self.server.health.unready())
            case _:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /healthz, /readyz\n")

    def _say(self, problem: str) -> None:
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
        """A probe every few seconds is no news."""
