"""Reads the address of a server or a proxy. Loads no HTTP library, so run files load quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

LARGEST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """The parts of a URL. `user` and `password` are decoded; None for a URL without them."""

    url: str = field(repr=False)
    scheme: str
    host: str
    port: int | None
    path: str
    query: str
    user: str | None
    password: str | None = field(repr=False)

    @property
    def has_possible_port(self) -> bool:
        return self.port is None or 0 < self.port <= LARGEST_PORT

    @property
    def host_and_port(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The address without user, password, path and query."""
        return f"{self.scheme}://{self.host_and_port}"


def read_address(text: str) -> Address:
    """Raises ValueError that says what is wrong and repeats no user or password."""
    if not text.isprintable():
        raise ValueError("Invalid character: one that cannot be printed")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"Invalid address: {error}") from None
    _check_host(host)
    user, password = (None if each is None else unquote(each) for each in _user(parts.netloc))
    port = _port(parts.netloc)
    return Address(text, parts.scheme, host, port, parts.path, parts.query, user, password)


def _check_host(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"Invalid host name: {host!r}") from None


def _user(netloc: str) -> tuple[str | None, str | None]:
    login, has_login, _ = netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    return user if has_login else None, password if has_password else None


def _port(netloc: str) -> int | None:
    after_host = netloc.rpartition("@")[2].rpartition("]")[2]
    port = after_host.partition(":")[2]
    if port and not (port.isascii() and port.isdecimal()):
        raise ValueError(f"Invalid port: {port!r}")
    return int(port) if port else None
