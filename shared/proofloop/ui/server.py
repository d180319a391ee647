"""The process that serves the pages until it is told to stop."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from shlex import quote

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError
from proofloop.runs.index import open_index
from proofloop.store import Store
from proofloop.ui.access import Access
from proofloop.ui.app import make_app
from proofloop.ui.fresh_index import FreshIndex
from proofloop.ui.live import LiveRuns
from proofloop.ui.site import Site
from proofloop.worker.listening import listen

CLOSE_S = 3
"""The time for requests in flight to finish after a stop."""


def serve(
    store: Store,
    settings: Settings,
    access: Access,
    grading: ASGIApp | None,
    *,
    run: str | None,
    host: str,
    port: int,
    stopping: threading.Event,
) -> None:
    """Serve until `stopping` is set, with the `grading` pages if there are any.

    Prints one JSON line when ready. Raises ConfigError for a bad address or cache folder.
    """
    listening = _listen(host, port)
    index = FreshIndex(open_index(store, settings.cache), store, stopping)
    live = LiveRuns(store, index, settings)
    site = Site(store, index, live, only=run, has_grading=grading is not None)
    try:
        _answer_until(stopping, make_app(site, stopping, access, grading), listening, str(store))
    finally:
        stopping.set()
        index.close()


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
    thread = threading.Thread(target=_answer, args=(server, listening, stopping), name="ui")
    thread.start()
    _tell_ready(listening, store)
    stopping.wait()
    server.should_exit = True
    thread.join()


def _answer(server: uvicorn.Server, listening: socket.socket, stopping: threading.Event) -> None:
    """Run the server. If it fails, the process ends."""
    try:
        server.run([listening])
    finally:
        stopping.set()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on --host {quote(host)} --port {port}: {error.strerror or error}",
            "choose another port; 0 takes a free one",
        ) from error


def _tell_ready(listening: socket.socket, store: str) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    ready = {"ready": "ui", "url": url, "store": store, "pid": os.getpid()}
    print(json.dumps(ready), flush=True)
    print(f"open {url} in a browser; Ctrl-C stops the server", file=sys.stderr)
