"""How the engine `openai` connects: proxies, certificates, sockets and open files."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from proofloop.engine.openai.network.address import read_address
from proofloop.engine.openai.network.sockets import QUIET_S, watched_socket
from proofloop.errors import ConfigError
from tests.integration.certificates import Certificates, make_certificates
from tests.scripted_openai import Exchange, ScriptedServer, answers, refuses
from tests.unit.engine.conftest import Connect, Serve, ask, fails_with

# -- addresses
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host_and_port", "origin"),
    [
        ("http://h:8000/v1", "h:8000", "http://h:8000"),
        ("https://me:pw@h/v1?x=1", "h", "https://h"),
        ("http://[::1]:80", "[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_address_is_shown_without_user_and_query(
    url: str, host_and_port: str, origin: str
) -> None:
    address = read_address(url)
    assert (address.host_and_port, address.origin) == (host_and_port, origin)
    assert "pw" not in repr(address)


def test_a_user_and_password_are_decoded() -> None:
    address = read_address("socks5://a%40b:p%3Aw@h:1")
    assert (address.user, address.password) == ("a@b", "p:w")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h:x", "Invalid port: 'x'"),
        ("http://[", "Invalid address"),
        ("http://a..b/", "Invalid host name: 'a..b'"),
        ("http://h/\x01", "cannot be printed"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_address(url)


# -- proxies
# --------------------------------------------------------------------------------------------------

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        (
            "all_proxy",
            "socks5://me:secret@127.0.0.1:x",
            "all_proxy is not a proxy's address: Invalid port: 'x'",
        ),
        ("ALL_PROXY", "socks4://h:1", "ALL_PROXY = socks4://h:1 is not a proxy's address"),
        ("HTTP_PROXY", "http://h:x", "HTTP_PROXY is not a proxy's address: Invalid port: 'x'"),
        ("HTTP_PROXY", "http://", "HTTP_PROXY = http:// is not a proxy's address"),
        ("HTTP_PROXY", "http://h:99999", "HTTP_PROXY = http://h:99999 is not a proxy's address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        connect(answers())
    assert problem in caught.value.problem and "127.0.0.1 to NO_PROXY" in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize("exempt", ["127.0.0.1", "[::1],127.0.0.1", "*", "10.0.0.0/8, 127.0.0.1"])
def test_a_proxy_that_the_server_is_exempt_from_does_not_matter(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert connect(answers("Direct.")).submit(ask()).result(60).text == "Direct."


@pytest.mark.usefixtures("without_proxies")
def test_an_exempt_IPv6_address_beside_a_direct_server_does_not_matter(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "[::1]")
    assert connect(answers("Direct.")).submit(ask()).result(60).text == "Direct."


@pytest.mark.usefixtures("without_proxies")
def test_a_proxy_is_asked_where_there_is_one(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(answers("By way of the proxy."))
    monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
    engine = connect(serve(), base_url="http://model-server.example/v1")
    assert engine.submit(ask()).result(60).text == "By way of the proxy."
    assert proxy.received[0].headers["host"] == "model-server.example"


@pytest.mark.usefixtures("without_proxies")
def test_a_proxy_that_is_away_is_blamed(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    error = fails_with(connect(serve(), base_url="http://model-server.example/v1"))
    assert error.retryable and "HTTP_PROXY" in error.hint


def test_a_file_of_authorities_that_is_not_there_is_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/none.pem")
    with pytest.raises(
        ConfigError, match=r"SSL_CERT_FILE = '/none.pem' cannot be read: No such file"
    ):
        connect(answers())


class Socks5Server:
    """Takes one user and password, and sends every connection to the same server."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._base_url, self._login = base_url, f"{user}:{password}".encode()
        self.asked_for: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as reader:
            reader.read(reader.read(2)[1])
            client.sendall(b"\x05\x02")  # a user and password, please
            if len(version_and_size := reader.read(2)) < 2:
                return  # the client knows no password
            user = reader.read(version_and_size[1])
            is_welcome = user + b":" + reader.read(reader.read(1)[0]) == self._login
            client.sendall(b"\x01\x00" if is_welcome else b"\x01\x01")
            if not is_welcome:
                return
            assert reader.read(4) == b"\x05\x01\x00\x03"  # connect to a name
            self.asked_for.append(reader.read(reader.read(1)[0]))
            reader.read(2)
            client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            forward(client, self._base_url)


def forward(client: socket.socket, base_url: str) -> None:
    """Copy bytes between the client and the server until both have ended."""
    port = read_address(base_url).port
    with socket.create_connection(("127.0.0.1", port or 0)) as server:
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def socks5(base_url: str, user: str = "me", password: str = "p@ss") -> Iterator[Socks5Server]:
    server = Socks5Server(base_url, user, password)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_SOCKS_proxy_gets_the_name_of_the_server(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    server = serve(answers("By way of SOCKS."))
    with socks5(server.base_url) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:p%40ss@{proxy.address}")
        engine = connect(server, base_url="http://model-server.example/v1")
        assert engine.submit(ask()).result(60).text == "By way of SOCKS."
        assert proxy.asked_for == [b"model-server.example"]


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize("login", ["me:wrong@", ""])
def test_a_SOCKS_proxy_that_refuses_is_blamed(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    server = serve(answers())
    with socks5(server.base_url) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{login}{proxy.address}")
        error = fails_with(connect(server, base_url="http://h.example/v1", max_attempts=1))
    assert error.retryable and "ALL_PROXY" in error.hint and "wrong" not in str(error)


@pytest.mark.usefixtures("without_proxies")
def test_a_SOCKS_proxy_that_is_away_is_blamed(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    error = fails_with(connect(serve(), base_url="http://h.example/v1", max_attempts=1))
    assert error.retryable and "ALL_PROXY" in error.hint


@pytest.mark.usefixtures("without_proxies")
def test_a_SOCKS_proxy_without_its_package_is_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp_socks", None)
    monkeypatch.setenv("all_proxy", "socks5://me:secret@127.0.0.1:1080")
    with pytest.raises(ConfigError) as caught:
        connect(answers())
    assert "all_proxy = socks5://127.0.0.1:1080 is a SOCKS proxy" in caught.value.problem
    assert "./shared[socks]" in caught.value.hint and "NO_PROXY" in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("without_proxies")
def test_a_proxy_gets_its_user_and_password(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(answers())
    port = read_address(proxy.base_url).port
    monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
    engine = connect(serve(), base_url="http://model-server.example/v1", api_key="sk-1")
    for seed in range(2):  # the second uses the same connection
        engine.submit(ask(seed=seed)).result(60)
    expected = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert [each.headers["proxy-authorization"] for each in proxy.received] == [expected] * 2
    assert [each.headers["authorization"] for each in proxy.received] == ["Bearer sk-1"] * 2


@pytest.mark.usefixtures("without_proxies")
def test_a_proxy_that_refuses_a_tunnel_is_blamed_and_never_gets_the_key(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []

    def refuse() -> None:
        for _attempt in range(2):  # the call, and the probe that follows its failure
            client, _ = listener.accept()
            with client:
                received.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 407 Login first\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, daemon=True).start()
        port = listener.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        settings = {"base_url": "https://model-server.example/v1", "api_key": "sk-very-secret"}
        error = fails_with(connect(serve(), max_attempts=1, **settings))
    assert len(received) == 2
    for request in received:
        assert request.startswith(b"CONNECT model-server.example:443 HTTP/1.1\r\n")
        assert b"sk-very-secret" not in request
    assert "the proxy answered with status 407: Login first" in error.problem
    assert error.retryable and "HTTPS_PROXY" in error.hint


# -- certificates
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure_server(serve: Serve, certificates: Certificates) -> ScriptedServer:
    """A server with a certificate of a private authority, for 127.0.0.1 and localhost."""
    server = serve(answers("Over TLS."))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.pem)
    listener = server._listener
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    server.base_url = server.base_url.replace("http://127.0.0.1", "https://localhost")
    return server


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize("way", ["direct", "tunnel", "SOCKS"])
def test_a_private_authority_is_trusted_on_every_way(
    secure_server: ScriptedServer,
    connect: Connect,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    with tunnel(secure_server.base_url) as proxy, socks5(secure_server.base_url) as socks:
        proxies = {"direct": "", "tunnel": proxy, "SOCKS": f"socks5://me:p%40ss@{socks.address}"}
        monkeypatch.setenv("ALL_PROXY", proxies[way])
        engine = connect(secure_server)
        answered = [engine.submit(ask(seed=seed)).result(60).text for seed in range(2)]
        engine.close()
    assert answered == ["Over TLS.", "Over TLS."]


def test_an_authority_that_is_not_trusted_is_named(
    secure_server: ScriptedServer, connect: Connect
) -> None:
    error = fails_with(connect(secure_server, max_attempts=1))
    assert "CERTIFICATE_VERIFY_FAILED" in error.problem and "set SSL_CERT_FILE" in error.hint


@contextmanager
def tunnel(base_url: str) -> Iterator[str]:
    """The address of an HTTP proxy that takes CONNECT."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=relay, args=(client,), daemon=True).start()

    def relay(client: socket.socket) -> None:
        with client, client.makefile("rb") as reader:
            while reader.readline() not in (b"\r\n", b""):
                pass
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            forward(client, base_url)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


# -- sockets
# --------------------------------------------------------------------------------------------------


def test_a_server_that_takes_no_connection_is_away_after_the_timeout(
    serve: Serve, connect: Connect
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):  # fills the queue
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            settings = {"base_url": url, "connect_timeout_s": 0.3, "max_attempts": 1}
            error = fails_with(connect(serve(), **settings))
    assert error.retryable and "no connection within connect_timeout_s = 0.3" in error.problem
    assert "start the server" in error.hint


def test_of_many_calls_that_begin_together_each_has_its_time_to_connect(
    serve: Serve, connect: Connect, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes one connection after the other, and longer for all than the timeout."""
    monkeypatch.setattr("proofloop.engine.openai.network.sockets.CONNECTING", 1)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    server = serve(answers())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.pem)
    listener = server._listener
    accept = listener.get_request

    def slowly() -> tuple[socket.socket, Any]:
        client, address = accept()
        time.sleep(0.25)
        return context.wrap_socket(client, server_side=True), address

    monkeypatch.setattr(listener, "get_request", slowly)
    url = server.base_url.replace("http://127.0.0.1", "https://localhost")
    settings = {"base_url": url, "connect_timeout_s": 3.0, "max_attempts": 1}
    engine = connect(server, max_concurrency=256, idle_timeout_s=60, **settings)
    calls = [engine.submit(ask(seed=seed)) for seed in range(14)]
    assert [call.result(60).text for call in calls] == ["It holds."] * 14


def test_a_server_that_speaks_no_TLS_is_unreachable(serve: Serve, connect: Connect) -> None:
    server = serve(answers())
    url = server.base_url.replace("http://", "https://")
    error = fails_with(connect(server, base_url=url, max_attempts=1))
    assert error.retryable and "cannot connect" in error.problem


def test_cookies_bind_no_later_call(serve: Serve, connect: Connect) -> None:
    """A cookie of a load balancer would send all calls to one replica."""

    def script(exchange: Exchange) -> None:
        exchange.begin(Set_Cookie="replica=7; Path=/")
        exchange.say("Yes.")
        exchange.finish()

    server = serve(script)
    engine = connect(server)
    for seed in range(2):
        engine.submit(ask(seed=seed)).result(60)
    assert ["cookie" in each.headers for each in server.received] == [False, False]


def test_a_redirect_is_not_followed(serve: Serve, connect: Connect) -> None:
    other = serve(answers())
    server = serve(refuses(302, "", Location=f"{other.base_url}/chat/completions"))
    error = fails_with(connect(server, api_key="sk-1"))
    assert not error.retryable and "status 302" in error.problem
    assert other.received == []


def test_the_kernel_probes_a_quiet_peer() -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 1))
    with watched_socket(address) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == QUIET_S


# -- open files
# --------------------------------------------------------------------------------------------------

OPENS_ENGINES = """
import resource, sys
from proofloop.engine.openai.endpoints import open_openai
from proofloop.errors import ConfigError

soft, hard, *calls = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
engines = []
try:
    for most in calls:
        engines.append(open_openai({"base_url": "http://h/v1", "max_concurrency": most}))
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except ConfigError as error:
    print(error)
for engine in engines:
    engine.close()
"""


def limit_after(soft: int, hard: int, *calls: int) -> str:
    """The limit of open files in a process that opened engines for so many calls, or its error."""
    arguments = [sys.executable, "-c", OPENS_ENGINES, *map(str, (soft, hard, *calls))]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("soft", "calls", "expected"), [(300, (600, 600), "1456"), (2000, (600,), "2000")]
)
def test_the_limit_of_open_files_is_raised_where_calls_need_it(
    soft: int, calls: tuple[int, ...], expected: str
) -> None:
    assert limit_after(soft, 2000, *calls) == expected


def test_a_limit_of_open_files_that_cannot_be_raised_is_named() -> None:
    said = limit_after(300, 2000, 4096)
    assert "max_concurrency = 4096" in said
    assert "need 4352 open files, and it may open 2000" in said
    assert "`ulimit -n 4352`" in said and "lower max_concurrency" in said
