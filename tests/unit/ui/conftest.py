"""A store with one run, and a browser on this machine that reads its pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from proofloop.config.settings import Settings
from proofloop.runs.create import create_run
from proofloop.runs.index import open_index
from proofloop.store import LocalStore
from proofloop.ui.access import Access
from proofloop.ui.app import make_app
from proofloop.ui.fresh_index import FreshIndex
from proofloop.ui.live import LiveRuns
from proofloop.ui.site import Site
from tests.builders import put_case, runspec


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    create_run(store, runspec(), resume=False)
    put_case(store)
    return store


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def site(store: LocalStore, tmp_path: Path, stopping: threading.Event) -> Iterator[Site]:
    found = open_index(store, tmp_path / "cache")
    index = FreshIndex(found, store, stopping, wait_s=20.0, fresh_s=0.0)
    yield Site(store, index, LiveRuns(store, index, Settings(), status_s=0.0))
    stopping.set()
    index.close()


Browse = Callable[..., TestClient]


@pytest.fixture
def browser(site: Site, stopping: threading.Event) -> Browse:
    """`browser(token)` is a browser of pages that need this password, or none."""

    def open_browser(token: str | None = None) -> TestClient:
        app = make_app(site, stopping, Access(token=token))
        return TestClient(app, base_url="http://localhost", follow_redirects=False)

    return open_browser
