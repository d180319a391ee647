"""The index is filled in the background: what people look at first, and what fails is told."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from proofloop.runs.create import create_run
from proofloop.runs.index import database, open_index
from proofloop.runs.index.counting import num_uncounted
from proofloop.runs.index.tables import totals
from proofloop.schema import keys
from proofloop.store import LocalStore
from proofloop.ui.fresh_index import UNREAD, FreshIndex
from proofloop.ui.site import Site
from tests.builders import RUN, runspec
from tests.unit.ui.conftest import Browse
from tests.waiting import wait_until


class SlowStore(LocalStore):
    """A store whose listings of labels wait until the test lets them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listed: list[str] = []
        self.may_list = threading.Event()

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        if prefix.endswith("/labels/"):
            self.listed.append(prefix.split("/")[1])
            assert self.may_list.wait(20)
        return super().list(prefix)


def test_a_page_does_not_wait_for_a_slow_store_and_an_opened_run_goes_first(
    store: LocalStore, tmp_path: Path
) -> None:
    slow, stopping = SlowStore(store.root), threading.Event()
    names = [f"run{number}" for number in range(4)]
    for name in names:
        create_run(store, runspec(name), resume=False)
    index = FreshIndex(open_index(store, tmp_path / "cache"), slow, stopping, wait_s=0.01)
    assert index.look_at_all(names) == [UNREAD] * 4
    assert wait_until(lambda: slow.listed == ["run0"], 10)
    assert index.look("run3") == UNREAD
    assert wait_until(lambda: slow.listed == ["run0", "run3"], 10)
    slow.may_list.set()
    assert wait_until(lambda: all(each.is_whole for each in index.look_at_all(names)), 10)
    stopping.set()
    index.close()


def test_a_damaged_label_is_told_and_the_next_look_tries_again(
    store: LocalStore, site: Site
) -> None:
    label = store.path(keys.label(RUN, "p1-000"))
    whole = label.read_bytes()
    label.write_bytes(b"{}")
    assert "labels/p1-000.json is not a valid Label" in site.index.look(RUN).problem
    label.write_bytes(whole)
    assert site.index.look(RUN).is_whole


def test_calls_are_counted_in_the_background(store: LocalStore, site: Site) -> None:
    site.index.look(RUN)
    assert num_uncounted(site.index.index, RUN) == totals(site.index.index, RUN).proofs == 1
    site.index.count(RUN)
    assert wait_until(lambda: num_uncounted(site.index.index, RUN) == 0, 10)


def test_a_page_tells_why_the_index_cannot_be_used(
    site: Site, browser: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.0)
    site.index.look(RUN)
    with closing(sqlite3.connect(site.index.index.file)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("DELETE FROM grades")
        assert "cannot write the index" in site.index.look(RUN).problem
        answer = browser().get("/")
    assert (answer.status_code, "database is locked" in answer.text) == (503, True)
