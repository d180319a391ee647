"""Connects to an OpenAI-compatible server: certificates, proxy, HTTP clients, and the errors of
failed connections.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl

import httpx

from proofloop.engine.openai.failure import STREAM_CUT, AttemptFailed, read_json
from proofloop.engine.openai.proxies import proxy_of
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import TRUST_HINT, ConfigError

MODELS_WITHIN_S = 10.0
MODELS_BYTES = 1024 * 1024
CANNOT_CONNECT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
NO_CONNECTION = "the server is unreachable"
PROXY_HINT = (
    "the connection uses the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: correct it, or add the"
    " server to NO_PROXY"
)


class Connection:
    """Opens clients for one server. Raises ConfigError for an invalid proxy or certificate file."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._proxy = proxy_of(settings.base_url)
        self._tls = _trusted_authorities()

    def open_client(self) -> httpx.AsyncClient:
        """A client for one call at a time, without a read timeout: the engine times silence."""
        settings = self._settings
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        return httpx.AsyncClient(
            base_url=settings.base_url.rstrip("/") + "/",
            headers={"Accept-Encoding": "identity"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(None, connect=settings.connect_timeout_s),
            verify=self._tls,
            proxy=self._proxy,
            trust_env=False,  # proxy and certificates of the environment are set above
        )

    def failure(self, error: httpx.RequestError) -> AttemptFailed:
        """The failure of an attempt: "busy" for an unreachable server, "failed" for an answer that
        was cut off, because the call itself may be the cause.
        """
        problem = f"{type(error).__name__}: {error}"
        if not isinstance(error, CANNOT_CONNECT):
            return AttemptFailed("failed", f"{STREAM_CUT}: {problem}", cause=STREAM_CUT)
        if "CERTIFICATE_VERIFY_FAILED" in problem:
            return AttemptFailed("busy", problem, hint=TRUST_HINT, cause=NO_CONNECTION)
        direct = f"start the server, or correct base_url = {self._settings.base_url!r}"
        hint = PROXY_HINT if self._proxy else direct
        return AttemptFailed("busy", problem, hint=hint, cause=NO_CONNECTION)


def _trusted_authorities() -> ssl.SSLContext:
    try:
        return _tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    except OSError as error:  # ssl.SSLError is one
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        problem = (
            f"{variable} = {os.environ.get(variable)!r} cannot be read: {error.strerror or error}"
        )
        raise ConfigError(problem, "correct or unset it") from error


@functools.cache
def _tls_context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Shared by all engines: reading the authorities that the environment names takes 40 ms."""
    return httpx.create_ssl_context()


async def read_up_to(response: httpx.Response, limit_bytes: int) -> bytes:
    """The first bytes of the body, at most `limit_bytes`."""
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])


async def served_models(client: httpx.AsyncClient) -> list[str]:
    """The names under GET /models; empty if the server does not list them."""
    try:
        async with asyncio.timeout(MODELS_WITHIN_S), client.stream("GET", "models") as response:
            body = read_json((await read_up_to(response, MODELS_BYTES)).decode(errors="replace"))
    except (httpx.RequestError, TimeoutError):
        return []
    rows = body.get("data") if isinstance(body, dict) else None
    names = (
        [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    )
    return [name for name in names if isinstance(name, str)]
