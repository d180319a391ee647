"""Services as processes on a namespace and a bucket folder of their own, for the benchmarks that
need real servers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proofloop.bus.dead_letters import DeadLetters
from proofloop.config.settings import Settings
from proofloop.store import Store, open_store
from tests.integration.servers import S3, Broker, delete_namespace, s3_settings

PROOFLOOP = Path(sys.executable).with_name("proofloop")


@dataclass
class Fleet:
    """The services' processes; the killed ones are remembered by their process ids."""

    environment: dict[str, str]
    namespace: str
    log: Path
    workers: dict[tuple[str, int], subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)

    def start(self, role: str, replica: int, *options: str) -> None:
        self.workers[role, replica] = self.call("serve", role, *options)

    def call(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [PROOFLOOP, *words], env=self.environment, stdout=log, stderr=log
            )

    def kill(self, role: str, replica: int) -> None:
        worker = self.workers[role, replica]
        worker.kill()
        worker.wait()
        self.killed.append(worker.pid)

    def end(self) -> None:
        for worker in self.workers.values():
            worker.kill()
            worker.wait()


@contextmanager
def installation(broker: Broker, s3: S3, place: Path) -> Iterator[tuple[Fleet, Store, DeadLetters]]:
    """No worker yet; those that are started are killed at the end. The log goes to `place`."""
    namespace = f"fleet-{os.urandom(4).hex()}"
    with s3_settings(s3) as settings:
        settings |= {"BROKER": broker.url, "NAMESPACE": namespace}
        environment = {f"PROOFLOOP_{name}": value for name, value in settings.items()}
        fleet = Fleet(os.environ | environment, namespace, place / "log.txt")
        store = open_store(
            Settings.model_validate({name.lower(): value for name, value in settings.items()})
        )
        try:
            yield fleet, store, DeadLetters(broker.url, namespace=namespace)
        finally:
            fleet.end()
            delete_namespace(broker.url, namespace)
