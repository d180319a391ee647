"""Finds the proxy for a server in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

aiohttp could find it too, but it ignores ALL_PROXY and names no variable in its errors.
"""

from __future__ import annotations

import importlib.util
import os
import urllib.request

from proofloop.engine.openai.network.address import Address, read_address
from proofloop.errors import ConfigError, install_hint

SCHEMES = ("http", "https")
SOCKS_SCHEMES = ("socks5", "socks5h")


def proxy_of(base_url: str) -> Address | None:
    """The proxy for the server, or None. Raises ConfigError that names the variable of an invalid
    proxy.
    """
    server = read_address(base_url)
    proxies = urllib.request.getproxies()
    kind = server.scheme if proxies.get(server.scheme) else "all"
    if not proxies.get(kind) or _is_exempt(server):
        return None
    return _read_proxy(variable_of(kind), proxies[kind].strip(), server.host)


def _is_exempt(server: Address) -> bool:
    """Whether NO_PROXY names the host. An IPv6 address may have brackets there or not."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return any(
        bool(urllib.request.proxy_bypass(name))
        for name in (host, server.host, server.host_and_port)
    )


def variable_of(kind: str) -> str:
    """The variable's name in the environment, in lower or upper case."""
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else name.upper()


def _read_proxy(variable: str, value: str, host: str) -> Address:
    way_out = f"correct or unset {variable}, or add {host} to NO_PROXY"
    try:
        address = read_address(value if "://" in value else f"http://{value}")
    except ValueError as error:
        raise ConfigError(f"{variable} is not a proxy's address: {error}", way_out) from error
    if address.scheme not in (*SCHEMES, *SOCKS_SCHEMES) or not (
        address.host and address.has_possible_port
    ):
        raise ConfigError(
            f"{variable} = {address.origin} is not a proxy's address such as http://host:port",
            way_out,
        )
    if address.scheme in SOCKS_SCHEMES and importlib.util.find_spec("aiohttp_socks") is None:
        raise ConfigError(
            f"{variable} = {address.origin} is a SOCKS proxy, which needs the package"
            " aiohttp-socks",
            f"{install_hint('[socks]')}; or unset {variable}, or add {host} to NO_PROXY",
        )
    return address
