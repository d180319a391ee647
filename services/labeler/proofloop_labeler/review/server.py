"""The process that serves the pages, until it is asked to stop."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
import threading
from collections.abc import Iterable

import structlog
import uvicorn
from starlette.applications import Starlette

from proofloop.bus import Bus
from proofloop.errors import ConfigError, StoreError
from proofloop.store import Store
from proofloop_labeler.review.cases import Cases
from proofloop_labeler.review.grading import Announcer
from proofloop_labeler.review.pages import Pages

log = structlog.get_logger()

CLOSE_S = 5
"""How long requests that are being answered may take when the page is asked to stop."""


def serve(
    store: Store,
    bus: Bus,
    *,
    run: str | None,
    spot_checks: int,
    host: str,
    port: int,
    token: str | None,
    stopping: threading.Event,
    grace_s: float,
) -> None:
    """Answer until `stopping` is set. Prints one JSON line when it is ready. Raises ConfigError for
    a wrong address.
    """
    check_address(host, token)
    listening = _listen(host, port)
    announcer, cases = Announcer(store, bus), Cases(store, spot_checks)
    runs = [run] if run is not None else list(cases.runs())
    for found in runs:  # what a page that is gone may not have announced
        announcer.look(found)
    threading.Thread(target=_read_ahead, args=(cases, runs), name="read-ahead", daemon=True).start()
    app = Pages(store, cases, announcer.look, only=run).app(token)
    _answer_until(stopping, app, listening, str(store))
    announcer.close(grace_s=grace_s)


def _answer_until(
    stopping: threading.Event, app: Starlette, listening: socket.socket, store: str
) -> None:
    """Answer from another thread: in the main one the server would take the signals for itself."""
    config = uvicorn.Config(
        app, log_config=None, server_header=False, timeout_graceful_shutdown=CLOSE_S
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_answer, args=(server, listening, stopping), name="review")
    thread.start()
    _say_ready(listening, store)
    stopping.wait()
    server.should_exit = True
    thread.join()


def _answer(server: uvicorn.Server, listening: socket.socket, stopping: threading.Event) -> None:
    """A server that ends by itself ends the process."""
    try:
        server.run([listening])
    finally:
        stopping.set()


def _read_ahead(cases: Cases, runs: Iterable[str]) -> None:
    """So that the first visitor of a large run does not wait for all its labels."""
    try:
        for run in runs:
            cases.standing(run)
    except StoreError as error:  # whoever asks for that run is told
        log.warning("not_read_ahead", reason=str(error))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened on: {error.strerror or error}",
            "choose another port; 0 takes one that is free",
        ) from error


def _say_ready(listening: socket.socket, store: str) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(
        json.dumps({"ready": "review", "url": url, "store": store, "pid": os.getpid()}), flush=True
    )
    print(f"open {url} in a browser; Ctrl-C ends it", file=sys.stderr)


def check_address(host: str, token: str | None) -> None:
    """Raises ConfigError for an address that others reach while no password is set."""
    if token is None and not is_here(host):
        raise ConfigError(
            f"--host {host}: others could reach the page, and it has no password",
            "set PROOFLOOP_REVIEW_TOKEN, or leave --host out: 127.0.0.1",
        )


def is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
