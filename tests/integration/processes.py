"""Folders, ports and server processes for tests."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.waiting import wait_until

START_S = 90.0
"""How long a server may take on a busy machine; it is usually under ten seconds."""


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


PORTS = range(15_000, 30_000)
"""Below the system's range of automatic ports, so that a restarted server gets its port again."""


def free_ports(count: int) -> list[int]:
    """Unused ports outside the range that the system assigns automatically. They stay reserved for
    this process until its end.
    """
    # Training seeds `random` alike in every process.
    drawn = random.SystemRandom().sample(PORTS, len(PORTS))
    return list(itertools.islice(filter(_is_reserved_here, drawn), count))


def _is_reserved_here(port: int) -> bool:
    """Reserve a port against other test processes, whose servers listen only later: all of them
    bind the UDP port of the same number, which no server uses.
    """
    reservation = socket.socket(type=socket.SOCK_DGRAM)
    try:
        reservation.bind(("127.0.0.1", port))
    except OSError:
        reservation.close()
        return False
    reservation.detach()  # it stays open until this process ends
    return _is_free(port)


def _is_free(port: int) -> bool:
    with socket.socket() as one, suppress(OSError):
        one.bind(("127.0.0.1", port))
        return True
    return False


def wait_for_server(
    what: str, is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path
) -> None:
    """Wait for a server; raises with the end of its log if it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


CONTAINER = (
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
"""Runs the command as the first process of a new namespace: it receives only signals that it
handles.
"""


@contextmanager
def in_container(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """A command as the first process of a container; its id as seen from outside. Skips where none
    may be made.
    """
    if shutil.which(CONTAINER[0]) is None or subprocess.run([*CONTAINER, "true"]).returncode:
        pytest.skip("no container: unshare (util-linux) is not installed, or not allowed")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*CONTAINER, *command], env=environment, stdout=file, stderr=file
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        wait_for_server("a container", lambda: bool(children.read_text()), process, log)
        yield int(children.read_text())
    finally:
        process.kill()
        process.wait()


def says(log: Path, text: str) -> bool:
    return text in log.read_text(errors="replace")


def until(is_so: Callable[[], bool], log: Path) -> None:
    """Wait for a condition; fails with the end of the log."""
    assert wait_until(is_so, START_S), log.read_text(errors="replace")[-2000:]


def answers(url: str) -> bool:
    try:
        # A TLS context takes 0.1 s to make.
        return httpx.get(url, timeout=2.0, verify=False).status_code < 500
    except httpx.HTTPError:
        return False


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """End a server with everything it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[str]:
    """The base URL of `transformers serve` with this model, offline, on the CPU."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=os.environ | offline, stdout=out, stderr=out) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for_server("transformers serve", lambda: answers(f"{url}/health"), server, log)
            yield f"{url}/v1"
        finally:
            server.kill()
