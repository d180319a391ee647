"""The holder of a lock or lease, in words, and the refusal of all others."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from proofloop.errors import ConfigError


def this_process() -> str:
    """This process, as other processes' errors name it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def clock_time(seconds: float) -> str:
    """A Unix time in words, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def in_use(what: str, store: object, holder: str, *, ends: str = "") -> ConfigError:
    """The refusal of a second process. `ends`: when the lease of a killed holder ends."""
    return ConfigError(
        f"another process is working on {what} in {store}: {holder or 'its name is unknown'}",
        f"wait until it ends, or stop it{ends}",
    )
