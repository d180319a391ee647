"""The last way to a real server: its image in Docker or podman, on private ports, removed at the
end.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

RABBITMQ_IMAGE = "docker.io/library/rabbitmq:4.1-management"
MINIO_IMAGE = "docker.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"

PULL_S = 600.0
"""How long an image may take to come."""


@dataclass(frozen=True)
class Container:
    """A container that can be killed and started again with what it had on its disk."""

    tool: str
    id: str

    def kill(self) -> None:
        call(self.tool, "kill", self.id)

    def start(self) -> None:
        call(self.tool, "start", self.id)

    def log(self) -> str:
        """The end of what it printed."""
        done = subprocess.run(
            [self.tool, "logs", "--tail", "40", self.id], capture_output=True, text=True
        )
        return done.stdout + done.stderr


def container_tool() -> str | None:
    """docker or podman, if its engine answers."""
    for tool in ("docker", "podman"):
        if (
            shutil.which(tool)
            and subprocess.run([tool, "info"], capture_output=True).returncode == 0
        ):
            return tool
    return None


@contextmanager
def running(
    tool: str, image: str, *command: str, ports: Mapping[int, int], environment: Mapping[str, str]
) -> Iterator[Container]:
    """Run an image; `ports` are ports of 127.0.0.1 by the container's own."""
    publish = [
        word for own, inside in ports.items() for word in ("-p", f"127.0.0.1:{own}:{inside}")
    ]
    settings = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    container = Container(
        tool, call(tool, "run", "-d", *publish, *settings, image, *command).strip()
    )
    try:
        yield container
    finally:
        call(tool, "rm", "-f", "-v", container.id)


def call(*command: str) -> str:
    """A command's output. Raises RuntimeError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PULL_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr[-1000:]}")
    return done.stdout
