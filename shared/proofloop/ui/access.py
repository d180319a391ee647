"""Who may read the pages: browsers on this machine, or all that know the password.

Forms of other sites are refused, and no page loads anything from elsewhere.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

HERE = ("127.0.0.1", "localhost", "[::1]")
"""The names of this machine in a browser on it."""

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

Next = Callable[[Request], Awaitable[Response]]


def guarded(token: str | None) -> Callable[[Request, Next], Awaitable[Response]]:
    """The check of every request. Without a token, all users of this machine have access."""

    async def guard(request: Request, call_next: Next) -> Response:
        response = _refusal(request, token) or await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guard


def _refusal(request: Request, token: str | None) -> Response | None:
    name, password = _credentials(request)
    if token is not None and not hmac.compare_digest(password.encode(), token.encode()):
        challenge = 'Basic realm="proofloop: your name and the password", charset="UTF-8"'
        return PlainTextResponse(
            "Log in with your name and the password (PROOFLOOP_REVIEW_TOKEN).\n",
            401,
            {"WWW-Authenticate": challenge},
        )
    request.state.person = name if token is not None else ""
    if request.method == "POST" and not _is_from_here(request):
        return PlainTextResponse(
            "Another site sent this form. Open the page here and send it again.\n", 403
        )
    return None


def _is_from_here(request: Request) -> bool:
    """Whether this site sent the form: browsers set these headers, and no page can change them."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", "")).netloc
    return origin == request.headers.get("host", "nowhere")


def _credentials(request: Request) -> tuple[str, str]:
    """Name and password of HTTP's basic authentication, empty if there are none."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = b64decode(encoded, validate=True).decode().partition(":")
    except (Base64Error, UnicodeDecodeError):
        return "", ""
    return name, password
