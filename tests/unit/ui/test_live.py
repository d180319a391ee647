"""A run as it is now: what its processes wrote, and what the page is sent while it works."""

from __future__ import annotations

import asyncio
import threading
import time

from proofloop.config.settings import Settings
from proofloop.runs.budget import TimeTaken
from proofloop.runs.create import create_run
from proofloop.runs.spec import get_spec
from proofloop.schema import keys
from proofloop.store import LocalStore, put_record
from proofloop.store.renewed import Renewed
from proofloop.ui.events import event, stream
from proofloop.ui.live import LiveRuns
from proofloop.ui.site import Site
from proofloop.worker.calls.usage import RoleUsage, UsageRecord
from tests.builders import RUN, label, proof, runspec
from tests.unit.ui.conftest import Browse

PRICED = {"per_million_prompt_tokens": 1e6, "per_million_completion_tokens": 2e6}


def put_usage(store: LocalStore, run: str = RUN, age_s: float = 0.0, calls: int = 3) -> None:
    """The usage of one process."""
    used = RoleUsage(calls=9, prompt_tokens=10, completion_tokens=20, in_flight=calls)
    record = UsageRecord(at_s=time.time() - age_s, roles={"verifier": used})
    Renewed(store, keys.usages(run), "usage", kept=1).write(record)


def put_label(store: LocalStore, name: str) -> None:
    put_record(store, keys.proof(RUN, name), proof(id=name))
    put_record(store, keys.label(RUN, name), label(proof_id=name))


def test_calls_and_tokens_are_those_that_the_processes_wrote(store: LocalStore, site: Site) -> None:
    spec = get_spec(store, RUN)
    quiet = site.live.status(spec)
    assert (quiet.calls, quiet.tokens, quiet.money, quiet.seconds_left) == ({}, 0, None, None)
    assert (quiet.totals.proofs, quiet.planned) == (1, 4)
    put_usage(store)
    put_usage(store, calls=4)
    put_usage(store, calls=100, age_s=600)  # of a process that died
    busy = site.live.status(spec)
    assert (busy.calls, busy.tokens) == ({"verifier": 7}, 90)
    assert busy.is_active and not busy.is_complete


def test_money_is_that_of_all_calls(store: LocalStore, site: Site) -> None:
    create_run(store, runspec("priced", prices=PRICED), resume=False)
    spec = get_spec(store, "priced")
    assert site.live.status(spec).money is None
    put_usage(store, "priced")
    assert site.live.status(spec).money == 10 + 2 * 20


def test_the_time_left_is_estimated_from_the_time_that_the_run_took(
    store: LocalStore, site: Site
) -> None:
    put_usage(store)
    Renewed(store, keys.times(RUN), "time", kept=1).write(TimeTaken(seconds=50.0))
    assert site.live.status(get_spec(store, RUN)).seconds_left == 150.0  # three of four are left


def test_a_broker_that_is_away_is_told_and_hides_nothing_else(
    store: LocalStore, site: Site
) -> None:
    settings = Settings(broker="amqp://guest:guest@127.0.0.1:1/")  # type: ignore[arg-type]
    status = LiveRuns(store, site.index, settings).status(get_spec(store, RUN))
    assert status.queues == () and "127.0.0.1:1" in status.queues_problem
    assert status.totals.proofs == 1
    page = site.render("status", spec=get_spec(store, RUN), status=status)
    assert "queues are not known" in page and "guest:guest" not in page


def test_a_change_is_sent_and_what_stays_is_not(
    store: LocalStore, site: Site, stopping: threading.Event
) -> None:
    async def receive() -> list[str]:
        events = stream(site, get_spec(store, RUN), stopping, every_s=0.01)
        first = await anext(events)
        put_label(store, "p1-001")
        second = await anext(events)
        stopping.set()
        return [first, second, *[each async for each in events]]

    first, second = asyncio.run(receive())
    assert "accepted <b>1</b>" in second and "accepted <b>1</b>" not in first
    assert all(line.startswith("data: ") for line in second.strip().splitlines())


def test_an_event_has_each_line_of_the_html() -> None:
    assert event("<p>\na\n</p>") == "data: <p>\ndata: a\ndata: </p>\n\n"


def test_the_stream_of_a_run_ends_with_the_server(
    browser: Browse, stopping: threading.Event
) -> None:
    stopping.set()
    answer = browser().get(f"/runs/{RUN}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert browser().get("/runs/none/events").status_code == 404
