"""Finds the proxy for a server in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx could find it too, but raises for invalid variables that do not concern the server.
"""

from __future__ import annotations

import importlib.util
import os
import urllib.request

import httpx

from proofloop.errors import ConfigError

SCHEMES = ("http", "https")
SOCKS_SCHEMES = ("socks5", "socks5h")


def proxy_of(base_url: str) -> httpx.Proxy | None:
    """The proxy for the server, or None. Raises ConfigError that names the variable of an invalid
    proxy.
    """
    server = httpx.URL(base_url)
    proxies = urllib.request.getproxies()
    kind = server.scheme if proxies.get(server.scheme) else "all"
    if not proxies.get(kind) or _is_exempt(server):
        return None
    return _read_proxy(variable_of(kind), proxies[kind].strip(), server.host)


def _is_exempt(server: httpx.URL) -> bool:
    """Whether NO_PROXY names the host. An IPv6 address may have brackets there or not."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return any(
        bool(urllib.request.proxy_bypass(name))
        for name in (host, server.host, server.netloc.decode())
    )


def variable_of(kind: str) -> str:
    """The variable's name in the environment, in lower or upper case."""
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else name.upper()


def _read_proxy(variable: str, value: str, host: str) -> httpx.Proxy:
    way_out = f"correct or unset {variable}, or add {host} to NO_PROXY"
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
        port_is_possible = url.port is None or 0 < url.port < 65536
    except httpx.InvalidURL as error:
        raise ConfigError(f"{variable} is not a proxy's address: {error}", way_out) from error
    if url.scheme not in (*SCHEMES, *SOCKS_SCHEMES) or not url.host or not port_is_possible:
        raise ConfigError(
            f"{variable} = {_shown(url)} is not a proxy's address such as http://host:port", way_out
        )
    if url.scheme in SOCKS_SCHEMES and importlib.util.find_spec("socksio") is None:
        problem = f"{variable} = {_shown(url)} is a SOCKS proxy, which needs the package socksio"
        raise ConfigError(
            problem, f"pip install 'httpx[socks]'; or unset {variable}, or add {host} to NO_PROXY"
        )
    return httpx.Proxy(url)


def _shown(url: httpx.URL) -> str:
    """The address without user and password."""
    return f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")
