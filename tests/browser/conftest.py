"""A browser for the tests, and pages that fail a test by an error on the console or a request that
leaves the machine.

Chromium is the one on PATH, or apt installs it (as root on Debian); else the tests are skipped.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright
from starlette.types import ASGIApp

from tests.integration.servers import install
from tests.waiting import wait_until

PROGRAM = "chromium"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a file; each test gets a profile of its own. While it runs,
    Playwright's event loop does too, and no other test could use one.
    """
    if shutil.which(PROGRAM) is None and not install(PROGRAM):
        pytest.skip("no Chromium: it is not on PATH and apt could not install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which(PROGRAM),
            args=["--no-sandbox", "--font-render-hinting=none", "--disable-lcd-text"],
        )
        yield browser
        browser.close()


class Faults:
    """What a page must not do: write an error on the console, throw, ask another machine."""

    def __init__(self, context: BrowserContext) -> None:
        self.seen: list[str] = []
        context.on("console", lambda message: self._console(message.type, message.text))
        context.on("weberror", lambda error: self.seen.append(f"thrown: {error.error}"))
        context.route("**/*", self._route)

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.seen.append(f"{kind}: {text}")

    def _route(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("data", "blob", "file") or address.hostname == "127.0.0.1":
            route.continue_()
        else:
            self.seen.append(f"request: {route.request.url}")
            route.abort()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh profile. At its end the test fails for any fault of its pages."""
    context = chromium.new_context(viewport={"width": 1000, "height": 900}, device_scale_factor=2)
    context.set_default_timeout(20_000)
    faults = Faults(context)
    yield context
    context.close()
    assert faults.seen == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def serve() -> Iterator[Callable[[ASGIApp], str]]:
    """Serves an application on this machine until the test ends; its address has no last slash."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(served(app))


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert wait_until(lambda: server.started, 20)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
