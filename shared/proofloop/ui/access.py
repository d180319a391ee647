"""Access to the pages, and the person's name: by passwords, or by the header of a trusted proxy.

Without either, only browsers on this machine have access, and each person enters a name. Forms of
other sites are refused, and no page loads anything from elsewhere.
"""

from __future__ import annotations

import hmac
import ipaddress
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from shlex import quote
from time import monotonic
from urllib.parse import unquote, urlsplit

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError
from proofloop.runs.grading.agreement import LABELS
from proofloop.schema.records import LABELER

log = structlog.get_logger()

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

NAME_COOKIE = "grader"
"""The browser's cookie with the name of a person who grades without a login."""

MAX_NAME = 80
RESERVED = (LABELER, LABELS)

MOST_WRONG = 20
"""The most wrong passwords from an address in a minute."""

MAX_BODY_BYTES = 3 * 4 * 60_000
"""The longest form: 60,000 characters of up to four bytes, each sent as three (`%F0`)."""

Next = Callable[[Request], Awaitable[Response]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Access:
    """The ways to log in. `token`: one password for all names. `passwords`: by name. `header`: the
    header with the person's name, trusted from `proxies` only.
    """

    token: str | None = None
    passwords: Mapping[str, str] = field(default_factory=dict)
    header: str = ""
    proxies: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Raises ConfigError for a bad setting."""
        secret = settings.review_passwords
        header, proxies = settings.review_user_header or "", settings.review_proxies or ""
        if bool(header) != bool(proxies):
            raise ConfigError(
                "PROOFLOOP_REVIEW_USER_HEADER and PROOFLOOP_REVIEW_PROXIES belong together",
                "set both: the header's name, and the addresses of the proxies that set it",
            )
        return cls(
            token=settings.review_token.get_secret_value() if settings.review_token else None,
            passwords=_passwords(secret.get_secret_value() if secret else ""),
            header=header,
            proxies=tuple(map(_network, proxies.replace(",", " ").split())),
        )

    @property
    def is_open(self) -> bool:
        """Whether all users of this machine have access without a login, and no others."""
        return self.token is None and not self.passwords and not self.header

    def person(self, request: Request) -> str | None:
        """The person's name; empty if this machine's users enter theirs; None without access."""
        if self.is_open:
            return ""
        if self.header and _is_from(request, self.proxies):
            return _name_in(request.headers.get(self.header, "")) or None
        name, password = _credentials(request)
        expected = self.passwords.get(name) if self.passwords else self.token
        is_right = hmac.compare_digest(password.encode(), (expected or "").encode())
        return name if is_right and expected else None


def _passwords(lines: str) -> dict[str, str]:
    """Names and passwords, as NAME:PASSWORD, one a line."""
    found: dict[str, str] = {}
    for number, line in enumerate(filter(str.strip, lines.splitlines()), 1):
        name, _, password = line.strip().partition(":")
        if not password or name_problem(name) or name in found:
            raise ConfigError(
                f"PROOFLOOP_REVIEW_PASSWORDS: line {number} is not NAME:PASSWORD, or repeats a"
                " name",
                "write a line for each person",
            )
        found[name] = password
    return found


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"PROOFLOOP_REVIEW_PROXIES: {error}", "give addresses or networks, as 10.0.0.0/8"
        ) from error


def _name_in(header: str) -> str:
    """The name in a header, which Starlette reads as Latin-1 and most proxies write in UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _address(request: Request) -> str:
    """The address of the other end: of the browser, or of the proxy in front of this page."""
    return request.client.host if request.client else ""


def _is_from(request: Request, networks: tuple[Network, ...]) -> bool:
    try:
        peer = ipaddress.ip_address(_address(request))
    except ValueError:
        return False
    # a socket of IPv6 shows the address of an IPv4 client as ::ffff:10.0.0.1
    peer = getattr(peer, "ipv4_mapped", None) or peer
    return any(peer in network for network in networks)


class Guesses:
    """Counts the wrong passwords from each address, every minute anew. Who has logged in before
    has access while others guess, also behind the same proxy.
    """

    def __init__(self) -> None:
        self._right: set[tuple[str, str]] = set()
        self._wrong = Counter[str]()
        self._minute = 0

    def are_too_many(self, request: Request) -> bool:
        minute = int(monotonic() // 60)
        if minute != self._minute:
            self._minute, self._wrong = minute, Counter()
        sent = _credentials(request)
        is_guess = any(sent) and sent not in self._right
        return is_guess and self._wrong[_address(request)] >= MOST_WRONG

    def count(self, request: Request, *, is_right: bool) -> None:
        sent = _credentials(request)
        if is_right:
            self._right.add(sent)
        if is_right or not any(sent):
            return
        self._wrong[_address(request)] += 1
        if self._wrong[_address(request)] == MOST_WRONG:
            log.warning("too_many_wrong_passwords", address=_address(request))


def guarded_app(app: ASGIApp, access: Access) -> Starlette:
    """The application behind access control. An open one answers only names of this machine."""
    return Starlette(
        routes=[Mount("/", app)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guarded(access))],
    )


def guarded(access: Access) -> Callable[[Request, Next], Awaitable[Response]]:
    """The check of every request. Sets `request.state.person`."""

    guesses = Guesses()

    async def guard(request: Request, call_next: Next) -> Response:
        response = _refusal(request, access, guesses) or await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guard


def _refusal(request: Request, access: Access, guesses: Guesses) -> Response | None:
    # Another site may name 127.0.0.1 as its own address, and its pages would reach this server.
    if access.is_open and not is_here(_host(request)):
        return PlainTextResponse("Open the page by an address of this machine.\n", 400)
    if guesses.are_too_many(request):
        return PlainTextResponse(
            "Too many wrong passwords came from your address. Try again in a minute.\n", 429
        )
    person = access.person(request)
    if not access.is_open:
        guesses.count(request, is_right=person is not None)
    if person is None:
        return _log_in(access)
    if person and (problem := name_problem(person)):
        return PlainTextResponse(f"{problem}\n", 403)
    request.state.person = person
    if request.method != "POST":
        return None
    if not _is_from_here(request):
        return PlainTextResponse(
            "Another site sent this form. Open the page here and send it again.\n", 403
        )
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return PlainTextResponse(f"A form has at most {MAX_BODY_BYTES} bytes.\n", 413)
    return None


def _log_in(access: Access) -> Response:
    if access.token is None and not access.passwords:
        return PlainTextResponse("Log in by the proxy in front of this page.\n", 403)
    challenge = 'Basic realm="proofloop: your name and password", charset="UTF-8"'
    return PlainTextResponse(
        "Log in with your name and password.\n", 401, {"WWW-Authenticate": challenge}
    )


def name_problem(name: str) -> str:
    """Why this cannot be a person's name; empty if it can."""
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        return f"A name has 1 to {MAX_NAME} printable characters; this one has {len(name)}."
    if name in RESERVED:
        return f"{name!r} is no person's name here. Enter your own name."
    return ""


def person_of(request: Request) -> str:
    """The person's name: of the login, or as it was entered to grade; empty if it is unknown."""
    if name := str(getattr(request.state, "person", "")):
        return name
    cookie = unquote(request.cookies.get(NAME_COOKIE, ""))
    return "" if name_problem(cookie) else cookie


def check_address(host: str, access: Access) -> None:
    """Raise ConfigError for an address that other machines can reach while no password is set."""
    if access.is_open and not is_here(host):
        raise ConfigError(
            f"--host {quote(host)}: other machines could reach the pages, and they have no"
            " password",
            "set PROOFLOOP_REVIEW_PASSWORDS or PROOFLOOP_REVIEW_TOKEN, or leave out --host to use"
            " 127.0.0.1",
        )


def is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(request: Request) -> str:
    """The name by which the browser calls this server; empty if its header is invalid."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_from_here(request: Request) -> bool:
    """Whether this site sent the form: browsers set these headers, and no page can change them."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get(
        "host", "nowhere"
    )


def _credentials(request: Request) -> tuple[str, str]:
    """Name and password of HTTP's basic authentication, empty if there are none."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # not Base64, or not UTF-8
        return "", ""
    return name, password
