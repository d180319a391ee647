"""Server-sent events: the status of a run as HTML, each time that it changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from proofloop.config.run_file import RunSpec
from proofloop.errors import StoreError
from proofloop.ui.site import Site, refusal_of

EVERY_S = 2.0
"""The pause between two looks at a run."""

ALIVE_S = 20.0
"""A comment is sent at least this often: proxies close silent connections."""


async def events(site: Site, stopping: threading.Event, request: Request) -> Response:
    """The stream of one browser. It ends when the browser leaves or the server stops."""
    spec = await run_in_threadpool(site.run, request)
    return StreamingResponse(
        stream(site, spec, stopping),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would hold events back
    )


async def stream(
    site: Site, spec: RunSpec, stopping: threading.Event, every_s: float = EVERY_S
) -> AsyncIterator[str]:
    """The run's status now, then each time that it changes, until the server stops."""
    last, silent_s = "", 0.0
    while not stopping.is_set():
        now = await run_in_threadpool(_status, site, spec)
        if now != last:
            last, silent_s = now, 0.0
            yield event(now)
        elif silent_s >= ALIVE_S:
            silent_s = 0.0
            yield ": alive\n\n"
        await asyncio.sleep(every_s)
        silent_s += every_s


def _status(site: Site, spec: RunSpec) -> str:
    try:
        return site.render("status", spec=spec, status=site.live.status(spec))
    except StoreError as error:
        return site.render("unavailable", text=refusal_of(error)[1])


def event(html: str) -> str:
    """One event: each line of the HTML is a line of data."""
    return "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"
