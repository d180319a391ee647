"""One process at a time holds a lease, in a local folder and on a real S3 server."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from proofloop.errors import ConfigError
from proofloop.store.lease import LeaseTimes, held
from proofloop.testing.store import StoreSubject
from tests.contract.test_store_contract import SUBJECTS, open_subject
from tests.waiting import wait_until

TIMES = LeaseTimes(last_s=5.0, renew_s=0.5, away_s=0.2)

HOLD = (
    "import time\n"
    "from proofloop.store.lease import LeaseTimes, held\n"
    "before = None\n"
    f"with held(store, 'small', 'the small run', {TIMES!r}) as lease:\n"
    "    while True:\n"
    "        try: now = lease.check() or 'held'\n"
    "        except Exception as error: now = f'{type(error).__name__} {error}'\n"
    "        if now.split()[0] != before: print(now, flush=True)\n"
    "        before = now.split()[0]\n"
    "        time.sleep(0.05)\n"
)
"""A holder that prints what `check` says each time it changes."""


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSubject]:
    with open_subject(request, tmp_path) as one:
        yield one


@pytest.fixture
def holder(subject: StoreSubject) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    process = subject.start(HOLD)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "held\n"
        yield process
        process.kill()
        process.wait(10)


def is_free(subject: StoreSubject, name: str = "small") -> bool:
    try:
        with held(subject.store, name, "the small run", TIMES):
            return True
    except ConfigError:
        return False


def test_the_refusal_names_the_holder_and_the_way_out(
    subject: StoreSubject, holder: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(ConfigError) as caught,
        held(subject.store, "small", "the small run", TIMES),
    ):
        pass
    assert re.fullmatch(
        re.escape(
            f"another process is working on the small run in {subject.store}: process"
            f" {holder.pid} on {socket.gethostname()}, since "
        )
        + r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC",
        caught.value.problem,
    )
    assert caught.value.hint.startswith("wait until it ends, or stop it")


def test_a_lease_is_free_at_once_after_its_block_and_can_be_held_again(
    subject: StoreSubject,
) -> None:
    for _ in range(3):
        with held(subject.store, "small", "the small run", TIMES) as lease:
            lease.check()
            assert not is_free(subject)
            assert is_free(subject, "another")
        assert is_free(subject)
    assert len(list(subject.store.list("runs/"))) <= 4, "old records are deleted"


def test_a_lease_is_renewed_while_it_is_held(subject: StoreSubject) -> None:
    with held(subject.store, "small", "the small run", TIMES) as lease:
        end_s = time.monotonic() + TIMES.last_s + 1
        while time.monotonic() < end_s:
            assert not is_free(subject)
            lease.check()
            time.sleep(0.2)


def test_a_killed_holders_lease_ends_by_itself(
    subject: StoreSubject, holder: subprocess.Popen[str]
) -> None:
    assert not is_free(subject)
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    if "s3:" not in str(subject.store):
        assert is_free(subject), "a file lock ends with its process"
    assert wait_until(lambda: is_free(subject), TIMES.last_s + 30)


def test_one_of_eight_racing_threads_gets_the_lease(subject: StoreSubject) -> None:
    gate, done = Barrier(8), Barrier(8)

    def race(number: int) -> list[bool]:
        won = []
        for turn in range(5):
            gate.wait()
            try:
                with held(subject.store, f"race-{turn}", "it", LeaseTimes()):
                    done.wait()
                    won.append(True)
            except ConfigError:
                done.wait()
                won.append(False)
        return won

    with ThreadPoolExecutor(8) as pool:
        turns = list(zip(*pool.map(race, range(8)), strict=True))
    assert [sum(turn) for turn in turns] == [1] * 5


@pytest.mark.parametrize("subject", ["minio"], indirect=True)
def test_a_holder_that_was_suspended_learns_that_another_process_has_the_lease(
    subject: StoreSubject, holder: subprocess.Popen[str]
) -> None:
    assert holder.stdout is not None
    holder.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: is_free(subject), TIMES.last_s + 30)
    with held(subject.store, "small", "the small run", TIMES) as lease:
        holder.send_signal(signal.SIGCONT)
        lost = next(line for line in holder.stdout if line.startswith("ConfigError"))
        lease.check()
    assert "this process has lost its lease on the small run in s3://" in lost
