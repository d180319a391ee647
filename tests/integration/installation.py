"""Services as real processes on a real broker and a real S3 store, with a namespace and a folder of
their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proofloop.bus.dead_letters import DeadLetters
from tests.integration.servers import delete_namespace

PROOFLOOP = Path(sys.executable).with_name("proofloop")


@dataclass
class Installation:
    """The environment of one installation's processes, and the processes."""

    environment: dict[str, str]
    letters: DeadLetters
    folder: Path
    services: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    starting: set[str] = field(default_factory=set)

    def call(self, *words: str) -> subprocess.Popen[str]:
        with open(self.folder / "log.txt", "a") as log:
            command = [str(PROOFLOOP), *words]
            process = subprocess.Popen(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.processes.append(process)
        return process

    def start(self, role: str, *options: str, concurrency: int = 16) -> None:
        self.services[role] = self.call("serve", role, "--concurrency", str(concurrency), *options)
        self.starting.add(role)

    def kill(self, role: str) -> None:
        self.services[role].kill()
        self.services[role].wait()

    def wait_ready(self, role: str) -> dict[str, object]:
        """What the service says of itself when it is ready; once for each start."""
        self.starting.remove(role)
        stdout = self.services[role].stdout
        assert stdout is not None
        ready: dict[str, object] = json.loads(stdout.readline())
        return ready

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()[-3000:]


@contextmanager
def installed(settings: dict[str, str], broker_url: str, folder: Path) -> Iterator[Installation]:
    """No process yet; those that are started have these settings, and are killed at the end."""
    namespace = folder.name[-40:]
    settings = {"BROKER": broker_url, "NAMESPACE": namespace, "GRACE_S": "10"} | settings
    environment = {**os.environ, **{f"PROOFLOOP_{name}": value for name, value in settings.items()}}
    one = Installation(environment, DeadLetters(broker_url, namespace=namespace), folder)
    with _environment(environment):
        try:
            yield one
        finally:
            for process in one.processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
            delete_namespace(broker_url, namespace)


@contextmanager
def _environment(environment: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield
