"""What many long calls need of the operating system: open files, and a check for dead peers."""

from __future__ import annotations

import resource
import socket
import threading

from aiohttp import AddrInfoType

from proofloop.errors import ConfigError

OTHER_FILES = 256
"""Open files of this process that are no calls of its engines: the store, the broker, logs."""

QUIET_S, PROBE_EVERY_S, PROBES = 60, 15, 4
"""After a minute without a byte the kernel probes the peer. A peer that is gone, such as a machine
without power, answers no probe: the call then fails within another minute.
"""


def watched_socket(address: AddrInfoType) -> socket.socket:
    """A socket whose peer the kernel probes. A NAT also keeps such a quiet connection longer."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", QUIET_S),
        ("TCP_KEEPINTVL", PROBE_EVERY_S),
        ("TCP_KEEPCNT", PROBES),
    ):
        if hasattr(socket, name):  # macOS has no TCP_KEEPIDLE
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


class OpenFiles:
    """Raises this process's limit of open files for the calls of all its engines."""

    def __init__(self) -> None:
        self._calls = 0
        self._lock = threading.Lock()

    def reserve(self, calls: int) -> None:
        """Make room for an engine's calls. Raises ConfigError if the system allows no more."""
        with self._lock:
            needed = OTHER_FILES + self._calls + calls
            _allow(needed, calls)
            self._calls += calls

    def release(self, calls: int) -> None:
        """The engine has closed. The limit stays as it is."""
        with self._lock:
            self._calls -= calls


def _allow(needed: int, calls: int) -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"max_concurrency = {calls}: the engines of this process then need {needed} open"
            f" files, and it may open {most}",
            too_many_files_hint(needed),
        ) from error


def too_many_files_hint(needed: int) -> str:
    return (
        f"allow more (`ulimit -n {needed}`, or LimitNOFILE of the service), or lower"
        " max_concurrency under [engine.settings]"
    )


open_files = OpenFiles()
