"""The pages to grade on as real processes on a real broker and store: killed at the worst moment,
and raced.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from proofloop.bus import open_bus
from proofloop.bus.task_message import event_of
from proofloop.bus.topology import Topology
from proofloop.config.settings import load_settings
from proofloop.runs.create import create_run
from proofloop.runs.grading.history import grades_of
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.events import ProofLabeled, decode
from proofloop.schema.records import PIPELINE_ROLES
from proofloop.store import Store, find_record, open_store
from tests.builders import PROOF, RUN, put_case, runspec
from tests.integration.installation import Installation
from tests.integration.servers import taken_from
from tests.waiting import wait_until

FORM = {"score": "0.5", "comment": "Step 2 is missing."}
EMMY = "Emmy Noether"

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
    bus = open_bus(settings, roles=[*PIPELINE_ROLES, "trainer"])
    bus.close(grace_s=5)
    store = open_store(settings)
    create_run(store, runspec(), resume=False)
    put_case(store)
    return store


def test_a_grade_reaches_the_trainer_once_although_the_page_was_killed(
    installation: Installation, data: Store
) -> None:
    with open(installation.folder / "log.txt", "a") as log:
        command = [sys.executable, "-c", KILLED_WHEN_PUBLISHING, "ui", RUN, "--port", "0"]
        doomed = subprocess.Popen(
            command, env=installation.environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    installation.processes.append(doomed)
    grade(address(doomed))
    assert doomed.wait(60) == -signal.SIGKILL, installation.log()
    (stored,) = grades_of(data, RUN, PROOF)
    assert stored.by == EMMY
    assert waiting_for_trainer(installation) == []

    for _ in range(2):  # the second finds nothing to announce
        process = installation.call("ui", "--port", "0")
        shown = httpx.get(f"{address(process)}grade/runs/{RUN}", headers=cookie(EMMY)).text
        assert "Step 2 is missing." in shown
        assert wait_until(lambda: is_announced(data), 60), installation.log()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, installation.log()

    (event,) = waiting_for_trainer(installation)
    assert (event.score, event.by, event.grade) == (0.5, EMMY, 0)


def test_grades_from_two_pages_at_once_are_both_kept_and_make_one_label(
    installation: Installation, data: Store
) -> None:
    pages = [address(installation.call("ui", RUN, "--port", "0")) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda page: grade(page, by=f"at {page}"), pages))
    assert [answer.status_code for answer in answers] == [303, 303]
    assert [given.number for given in grades_of(data, RUN, PROOF)] == [0, 1]
    assert wait_until(lambda: is_announced(data, number=1), 60), installation.log()
    for process in installation.processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, installation.log()
    found = find_label(data, RUN, PROOF)
    assert found and (found.score, found.grade) == (0.5, 1)
    assert waiting_for_trainer(installation)[-1] == ProofLabeled.of(found)


def test_an_address_that_others_reach_needs_a_password(
    installation: Installation, data: Store
) -> None:
    refused = installation.call("ui", "--host", "0.0.0.0", "--port", "0")
    assert refused.wait(60) == 2
    assert (
        "--host 0.0.0.0: other machines could reach the pages, and they have no password"
        in installation.log()
    )
    installation.environment["PROOFLOOP_REVIEW_TOKEN"] = "a long word"
    page = address(installation.call("ui", "--host", "0.0.0.0", "--port", "0"))
    assert httpx.get(page).status_code == 401
    assert PROOF in httpx.get(f"{page}grade/runs/{RUN}", auth=("Emmy", "a long word")).text
    del installation.environment["PROOFLOOP_REVIEW_TOKEN"]
    installation.environment["PROOFLOOP_REVIEW_PASSWORDS"] = "Emmy:one\nEmil:two"
    page = address(installation.call("ui", "--host", "0.0.0.0", "--port", "0"))
    assert httpx.get(page, auth=("Emmy", "two")).status_code == 401
    assert PROOF in httpx.get(f"{page}grade/runs/{RUN}", auth=("Emil", "two")).text


def test_a_port_that_is_taken_is_named(installation: Installation, data: Store) -> None:
    port = str(httpx.URL(address(installation.call("ui", "--port", "0"))).port)
    assert installation.call("ui", "--port", port).wait(60) == 2
    assert (
        f"cannot listen on --host 127.0.0.1 --port {port}: Address already in use"
        in installation.log()
    )


def address(process: subprocess.Popen[str]) -> str:
    """Where a page says that it answers, once it does."""
    assert process.stdout is not None
    url: str = json.loads(process.stdout.readline())["url"]
    return url


def grade(page: str, by: str = EMMY) -> httpx.Response:
    headers = {"Origin": page.rstrip("/"), **cookie(by)}
    address = f"{page}grade/runs/{RUN}/proofs/{PROOF}"
    return httpx.post(address, data=FORM, headers=headers, timeout=30)


def cookie(name: str) -> dict[str, str]:
    return {"Cookie": f"grader={quote(name, safe='')}"}


def is_announced(store: Store, number: int = 0) -> bool:
    return find_record(store, keys.announcement(RUN, PROOF, number), ProofLabeled) is not None


def waiting_for_trainer(installation: Installation) -> list[ProofLabeled]:
    """Every message in the trainer's queue; they stay there."""
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue("trainer").name
    bodies = [body for _, body in taken_from(installation.environment["PROOFLOOP_BROKER"], queue)]
    found = [decode(event_of(body)) for body in bodies]
    assert all(isinstance(event, ProofLabeled) for event in found)
    return found  # type: ignore[return-value]
