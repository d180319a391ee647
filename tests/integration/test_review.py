"""The page to grade on as real processes on a real broker and store: killed at its worst moment,
and raced.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from proofloop.bus import NEEDED_BY_ALL, open_bus
from proofloop.bus.task_message import event_of
from proofloop.bus.topology import Topology
from proofloop.config.settings import load_settings
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.events import ProofLabeled, decode
from proofloop.schema.records import Grade
from proofloop.store import Store, find_record, get_record, open_store
from tests.builders import PROOF, RUN, put_case, runspec
from tests.integration.installation import Installation
from tests.integration.servers import taken_from
from tests.waiting import wait_until

FORM = {"score": "0.5", "by": "Emmy Noether", "comment": "Step 2 is missing."}

KILLED_WHEN_PUBLISHING = """
import os, signal
from proofloop.bus.rabbitmq import RabbitBus
RabbitBus.publish = lambda bus, events: os.kill(os.getpid(), signal.SIGKILL)
from proofloop.cli import main
main()
"""


@pytest.fixture
def data(installation: Installation) -> Store:
    """The installation's store with one undecided proof; the queue of a trainer that does not run
    yet is there.
    """
    settings = load_settings()
    bus = open_bus(settings, roles=[*NEEDED_BY_ALL, "trainer"])
    bus.close(grace_s=5)
    store = open_store(settings)
    create_run(store, runspec(), resume=False)
    put_case(store)
    return store


def test_a_grade_reaches_the_trainer_once_although_the_page_was_killed(
    installation: Installation, data: Store
) -> None:
    with open(installation.folder / "log.txt", "a") as log:
        command = [sys.executable, "-c", KILLED_WHEN_PUBLISHING, "review", RUN, "--port", "0"]
        doomed = subprocess.Popen(
            command, env=installation.environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    installation.processes.append(doomed)
    grade(address(doomed))
    assert doomed.wait(60) == -signal.SIGKILL, installation.log()
    assert get_record(data, keys.grade(RUN, PROOF), Grade).by == "Emmy Noether"
    assert waiting_for_trainer(installation) == []

    for _ in range(2):  # the second finds nothing to announce
        process = installation.call("review", "--port", "0")
        assert "Emmy Noether" in httpx.get(f"{address(process)}runs/{RUN}").text
        assert wait_until(lambda: is_announced(data), 60), installation.log()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, installation.log()

    (event,) = waiting_for_trainer(installation)
    assert event == ProofLabeled.of(get_record(data, keys.grade(RUN, PROOF), Grade).label)
    assert (event.score, event.by) == (0.5, "Emmy Noether")


def test_two_graders_on_two_pages_at_once_make_one_label_and_one_announcement(
    installation: Installation, data: Store
) -> None:
    pages = [address(installation.call("review", RUN, "--port", "0")) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda page: grade(page, by=f"at {page}"), pages))
    assert sorted(answer.status_code for answer in answers) == [303, 409]
    (refused,) = (answer.text for answer in answers if answer.status_code == 409)
    first = get_record(data, keys.grade(RUN, PROOF), Grade)
    assert f"{first.by} graded this proof before you" in refused
    assert wait_until(lambda: is_announced(data), 60), installation.log()
    for process in installation.processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, installation.log()
    assert waiting_for_trainer(installation) == [ProofLabeled.of(first.label)]


def test_an_address_that_others_reach_needs_a_password(
    installation: Installation, data: Store
) -> None:
    refused = installation.call("review", "--host", "0.0.0.0", "--port", "0")
    assert refused.wait(60) == 2
    assert (
        "--host 0.0.0.0: other machines could reach the page, and it has no password"
        in installation.log()
    )
    installation.environment["PROOFLOOP_REVIEW_TOKEN"] = "a long word"
    page = address(installation.call("review", "--host", "0.0.0.0", "--port", "0"))
    assert httpx.get(page).status_code == 401
    assert PROOF in httpx.get(f"{page}runs/{RUN}", auth=("Emmy", "a long word")).text


def test_a_port_that_is_taken_is_named(installation: Installation, data: Store) -> None:
    port = str(httpx.URL(address(installation.call("review", "--port", "0"))).port)
    assert installation.call("review", "--port", port).wait(60) == 2
    assert (
        f"cannot listen on --host 127.0.0.1 --port {port}: Address already in use"
        in installation.log()
    )


def address(process: subprocess.Popen[str]) -> str:
    """Where a page says that it answers, once it does."""
    assert process.stdout is not None
    url: str = json.loads(process.stdout.readline())["url"]
    return url


def grade(page: str, **changes: str) -> httpx.Response:
    origin = {"Origin": page.rstrip("/")}
    return httpx.post(
        f"{page}runs/{RUN}/proofs/{PROOF}", data={**FORM, **changes}, headers=origin, timeout=30
    )


def is_announced(store: Store) -> bool:
    return find_record(store, keys.announcement(RUN, PROOF), ProofLabeled) is not None


def waiting_for_trainer(installation: Installation) -> list[ProofLabeled]:
    """Every message in the trainer's queue; they stay there."""
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue("trainer").name
    bodies = [body for _, body in taken_from(installation.environment["PROOFLOOP_BROKER"], queue)]
    found = [decode(event_of(body)) for body in bodies]
    assert all(isinstance(event, ProofLabeled) for event in found)
    return found  # type: ignore[return-value]
