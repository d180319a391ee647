"""Sockets for many long calls: the limit of open files, a check for dead peers, and connectors that
open a few connections at a time.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import threading
from typing import Any

from aiohttp import AddrInfoType, TCPConnector, ThreadedResolver
from aiohttp.client_proto import ResponseHandler

from proofloop.errors import ConfigError

OTHER_FILES = 256
"""Open files of this process besides its engines' calls: the store, the broker, logs."""

QUIET_S, PROBE_EVERY_S, PROBES = 60, 15, 4
"""After a minute without a byte the kernel probes the peer. A peer that is gone, such as a machine
without power, answers no probe: the call then fails within another minute.
"""


KEPT_OPEN_S = 4.0
"""An idle connection is closed after this time: uvicorn, under vLLM and SGLang, waits 5 s."""

CONNECTING = 256
"""Connections that are opened at once. Thousands that began together would share the time, and all
of them would pass `connect_timeout_s`.
"""


class _Paced(TCPConnector):
    """Opens a few connections at a time: each has its whole timeout."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, limit=0, keepalive_timeout=KEPT_OPEN_S)
        self._gate = asyncio.Semaphore(CONNECTING)

    async def _wrap_create_connection(
        self, *args: Any, **options: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        # The step that aiohttp-socks replaces too. aiohttp's timeout begins inside it.
        async with self._gate:
            return await super()._wrap_create_connection(*args, **options)


def direct_connector(tls: ssl.SSLContext) -> TCPConnector:
    """Connects to servers and HTTP proxies. Names are looked up as the system does it."""
    return _Paced(ssl=tls, socket_factory=watched_socket, resolver=ThreadedResolver())


def socks_connector(
    tls: ssl.SSLContext, host: str, port: int, user: str | None, password: str | None
) -> TCPConnector:
    """Connects through a SOCKS proxy, which looks the server's name up."""
    from aiohttp_socks import ProxyConnector, ProxyType

    class PacedProxyConnector(_Paced, ProxyConnector):
        pass

    return PacedProxyConnector(host, port, ProxyType.SOCKS5, user, password, rdns=True, ssl=tls)


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
