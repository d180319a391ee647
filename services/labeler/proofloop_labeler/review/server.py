"""The process that serves the pages until it is told to stop."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette

from proofloop.bus import Bus
from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, StoreError
from proofloop.store import Store
from proofloop_labeler.review.access import Access
from proofloop_labeler.review.announcer import Announcer
from proofloop_labeler.review.app import grading_app, guarded_app
from proofloop_labeler.review.cases import Cases, Offer

log = structlog.get_logger()

CLOSE_S = 5
"""The time for requests in flight to finish after a stop."""


def serve(
    store: Store,
    bus: Bus,
    *,
    run: str | None,
    spot_checks: int,
    analyses: int,
    overlap: int,
    host: str,
    port: int,
    settings: Settings,
    stopping: threading.Event,
) -> None:
    """Serve until `stopping` is set. Prints one JSON line when ready. Raises ConfigError for a bad
    address.
    """
    access = Access.of(settings)
    check_address(host, access)
    listening = _listen(host, port)
    offer = Offer(spot_checks, analyses, overlap, people=tuple(access.passwords))
    with grading_pages(store, bus, offer, run=run, grace_s=settings.grace_s) as pages:
        _answer_until(stopping, guarded_app(pages, access), listening, str(store))


@contextmanager
def grading_pages(
    store: Store, bus: Bus, offer: Offer, *, run: str | None, grace_s: float
) -> Iterator[Starlette]:
    """The pages to mount, without access control. Announces grades until the block ends."""
    announcer, cases = Announcer(store, bus), Cases(store, offer)
    runs = [run] if run is not None else list(cases.runs())
    for found in runs:  # grades that an earlier process did not announce
        announcer.announce(found)
    threading.Thread(target=_read_ahead, args=(cases, runs), name="read-ahead", daemon=True).start()
    try:
        yield grading_app(store, cases, announcer.announce, only=run)
    finally:
        announcer.close(grace_s=grace_s)


def _answer_until(
    stopping: threading.Event, app: Starlette, listening: socket.socket, store: str
) -> None:
    """Serve in another thread: in the main thread, the server would handle the signals itself.

    Addresses are not logged, and `proxy_headers` is off because a proxy is trusted by its own
    address.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_S,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_answer, args=(server, listening, stopping), name="review")
    thread.start()
    _say_ready(listening, store)
    stopping.wait()
    server.should_exit = True
    thread.join()


def _answer(server: uvicorn.Server, listening: socket.socket, stopping: threading.Event) -> None:
    """Run the server. If it fails, the process ends."""
    try:
        server.run([listening])
    finally:
        stopping.set()


def _read_ahead(cases: Cases, runs: Iterable[str]) -> None:
    """Read the labels before the first visitor: those of a large run take seconds."""
    try:
        for run in runs:
            cases.tasks(run)
    except StoreError as error:  # a visitor sees the error
        log.warning("read_ahead_failed", reason=str(error))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on --host {host} --port {port}: {error.strerror or error}",
            "choose another port; 0 takes a free one",
        ) from error


def _say_ready(listening: socket.socket, store: str) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(
        json.dumps({"ready": "review", "url": url, "store": store, "pid": os.getpid()}), flush=True
    )
    print(f"open {url} in a browser; Ctrl-C stops the server", file=sys.stderr)


def check_address(host: str, access: Access) -> None:
    """Raise ConfigError for an address that other machines can reach while no password is set."""
    if access.is_open and not is_here(host):
        raise ConfigError(
            f"--host {host}: other machines could reach the page, and it has no password",
            "set PROOFLOOP_REVIEW_PASSWORDS or PROOFLOOP_REVIEW_TOKEN, or leave out --host to use"
            " 127.0.0.1",
        )


def is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
