"""Access to the pages: a password, no forms from other sites, no scripts."""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from proofloop_labeler.review.form import MAX_BODY_BYTES

HERE = ("127.0.0.1", "localhost", "[::1]")
"""The names of this machine in a browser on it."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
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
        response.headers.update(HEADERS)
        return response

    return guard


def _refusal(request: Request, token: str | None) -> Response | None:
    name, password = _credentials(request)
    if token is not None and not hmac.compare_digest(password.encode(), token.encode()):
        challenge = {
            "WWW-Authenticate": (
                'Basic realm="proofloop review: your name, and the password", charset="UTF-8"'
            )
        }
        return PlainTextResponse(
            "Log in with your name and the password (PROOFLOOP_REVIEW_TOKEN).\n",
            401,
            challenge,
        )
    request.state.name = name if token is not None else ""
    if request.method != "POST":
        return None
    if not _is_from_here(request):
        return PlainTextResponse(
            "Another site sent this form. Open the proof here and send it again.\n", 403
        )
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return PlainTextResponse(f"A form has at most {MAX_BODY_BYTES} bytes.\n", 413)
    return None


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
    except (Base64Error, UnicodeDecodeError):
        return "", ""
    return name, password
