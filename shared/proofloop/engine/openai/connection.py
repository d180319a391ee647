"""Connects to an OpenAI-compatible server: certificates, proxy, the HTTP client, and the errors of
failed connections.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress

import aiohttp
import certifi
from yarl import URL

from proofloop.engine.openai.failure import STREAM_CUT, AttemptFailed, read_json
from proofloop.engine.openai.network.address import Address
from proofloop.engine.openai.network.proxies import SOCKS_SCHEMES, proxy_of
from proofloop.engine.openai.network.sockets import (
    direct_connector,
    open_files,
    socks_connector,
    too_many_files_hint,
)
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import TRUST_HINT, ConfigError

MODELS_WITHIN_S = 10.0
MODELS_BYTES = 1024 * 1024
REFUSAL_BYTES = 64 * 1024
SOCKS_PORT = 1080

HEADER_BYTES = 64 * 1024
"""The longest header of a response; some gateways send long ones."""

NO_CONNECTION = "the server is unreachable"
PROXY_HINT = (
    "the connection uses the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: correct it, or add the"
    " server to NO_PROXY"
)


class Connection:
    """The client of one server. Raises ConfigError for an invalid proxy or certificate file, and
    for a limit of open files that is too low.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._proxy = proxy_of(settings.base_url)
        self._tls = _trusted_authorities()
        self._cannot_connect = (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
            *_socks_errors(self._proxy),
        )
        self.errors: tuple[type[Exception], ...] = (aiohttp.ClientError, *self._cannot_connect)
        """What a failed connection raises."""
        self._base = URL(settings.base_url.rstrip("/") + "/")
        self._chat = self._base / "chat/completions"
        # Not among the client's own headers, which aiohttp sends to the proxy too.
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if settings.api_key:
            self._headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        open_files.reserve(settings.max_concurrency)

    @functools.cached_property
    def _client(self) -> aiohttp.ClientSession:
        """One for all calls, on the event loop that first uses it. It limits neither connections,
        which the engine's slots do, nor silence.
        """
        proxy = self._proxy
        return aiohttp.ClientSession(
            connector=self._connector(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.connect_timeout_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),  # a cookie could bind all calls to one replica
            proxy=proxy.url if proxy and proxy.scheme not in SOCKS_SCHEMES else None,
            trust_env=False,  # proxy and certificates of the environment are set here
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )

    def _connector(self) -> aiohttp.TCPConnector:
        proxy = self._proxy
        if proxy is None or proxy.scheme not in SOCKS_SCHEMES:
            return direct_connector(self._tls)
        return socks_connector(
            self._tls, proxy.host, proxy.port or SOCKS_PORT, proxy.user, proxy.password
        )

    async def ask(self, body: bytes) -> aiohttp.ClientResponse:
        """Send a chat completion's request. The caller closes the response, which may not have
        ended.
        """
        return await self._client.post(
            self._chat, data=body, headers=self._headers, allow_redirects=False
        )

    async def post(self, path: str, body: Mapping[str, str]) -> tuple[int, str]:
        """Send JSON to another path than the one of chat completions. Returns the status and the
        text. Raises AttemptFailed if the connection fails or stays silent for `idle_timeout_s`.
        """
        try:
            async with (
                asyncio.timeout(self._settings.idle_timeout_s),
                self._client.post(
                    self._base / path, json=body, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                text = await read_up_to(response, REFUSAL_BYTES)
                return response.status, text.decode(errors="replace")
        except TimeoutError:
            waited = f"idle_timeout_s = {self._settings.idle_timeout_s:g}"
            raise AttemptFailed("silent", f"no answer to POST {path} within {waited}") from None
        except self.errors as error:
            raise self.failure(error) from None

    async def served_models(self) -> list[str]:
        """The names under GET /models; empty if the server does not list them."""
        body: object = None
        with suppress(TimeoutError, *self.errors):
            async with (
                asyncio.timeout(MODELS_WITHIN_S),
                self._client.get(
                    self._base / "models", headers=self._headers, allow_redirects=False
                ) as response,
            ):
                text = await read_up_to(response, MODELS_BYTES)
                body = read_json(text.decode(errors="replace"))
        rows = body.get("data") if isinstance(body, dict) else None
        names = (
            [row.get("id") for row in rows if isinstance(row, dict)]
            if isinstance(rows, list)
            else []
        )
        return [name for name in names if isinstance(name, str)]

    async def close(self) -> None:
        open_files.release(self._settings.max_concurrency)
        await self._client.close()

    def failure(self, error: Exception) -> AttemptFailed:
        """The failure of an attempt: "busy" for an unreachable server, "failed" for an answer that
        was cut off, because the call itself may be the cause.
        """
        problem = self._described(error)
        if not isinstance(error, self._cannot_connect):
            return AttemptFailed("failed", f"{STREAM_CUT}: {problem}", cause=STREAM_CUT)
        return AttemptFailed(
            "busy", f"cannot connect: {problem}", hint=self._hint(error), cause=NO_CONNECTION
        )

    def _described(self, error: Exception) -> str:
        """aiohttp's errors repeat addresses and connection settings."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within connect_timeout_s = {self._settings.connect_timeout_s:g}"
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return f"the proxy answered with status {error.status}: {error.message}"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return str(error.certificate_error)
        if isinstance(error, aiohttp.ClientConnectorError):
            return str(error.os_error)
        if isinstance(error, aiohttp.ClientResponseError):
            return f"not an HTTP response: {error.message}"
        return f"{type(error).__name__}: {error}"

    def _hint(self, error: Exception) -> str:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return too_many_files_hint(2 * self._settings.max_concurrency)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return TRUST_HINT
        if self._proxy:
            return PROXY_HINT
        return f"start the server, or correct base_url = {self._settings.base_url!r}"


def _socks_errors(proxy: Address | None) -> tuple[type[Exception], ...]:
    """Only a SOCKS proxy needs the package."""
    if proxy is None or proxy.scheme not in SOCKS_SCHEMES:
        return ()
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    return ProxyConnectionError, ProxyError, ProxyTimeoutError


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
def _tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Shared by all engines: reading the authorities takes 40 ms."""
    if file or not folder:
        context = ssl.create_default_context(cafile=file or certifi.where())
    else:
        context = ssl.create_default_context(capath=folder)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def read_up_to(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The first bytes of the body, at most `limit_bytes`."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])
