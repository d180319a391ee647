"""TLS between this process and the broker, for both AMQP clients: pika takes a context, kombu a
dict.

Both check the broker's certificate against an authority and against the host name of the broker's
address. A broker may require a client certificate; it refuses a connection without one only
after the handshake (TLS 1.3), and the two clients report this differently: `tls_error` reads both.
A client that writes before it has read the refusal gets a reset instead of it: `late_refusal` asks
for the reason.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kombu.transport.pyamqp import SSLTransport
from pika import SSLOptions, URLParameters

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError

AUTHORITY_HINT = (
    "set PROOFLOOP_BROKER_CA or SSL_CERT_FILE to the certificate of the authority that signed it"
)
NAME_HINT = "use the host name of the broker's certificate in PROOFLOOP_BROKER"
CLIENT_HINT = (
    "set PROOFLOOP_BROKER_CERT and PROOFLOOP_BROKER_KEY to a client certificate that the broker"
    " trusts, and to its key"
)

NAME_MISMATCHES = (62, 64)
"""OpenSSL's codes X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

ALERTS = {
    "ALERT_CERTIFICATE_REQUIRED": "requires a client certificate",
    "ALERT_HANDSHAKE_FAILURE": (
        "refuses the TLS handshake; perhaps it requires a client certificate"
    ),
    "ALERT_UNKNOWN_CA": "does not trust this client certificate",
    "ALERT_BAD_CERTIFICATE": "does not trust this client certificate",
    "ALERT_CERTIFICATE_EXPIRED": "does not trust this client certificate: it has expired",
}
"""OpenSSL's names for the broker's alerts about client certificates, with their meaning.

For a missing certificate, TLS 1.3 sends the first alert and TLS 1.2 the second.
"""


REFUSAL_S = 3.0
"""How long `late_refusal` waits for the broker's alert: a broker that accepts the client sends
nothing.
"""


@dataclass(frozen=True)
class Tls:
    """The TLS settings: `context` for pika, `for_kombu` for kombu."""

    context: ssl.SSLContext | None = None
    for_kombu: dict[str, Any] | None = None
    transport: str | None = None
    """The transport class for kombu; None for kombu's own."""


NO_TLS = Tls()


def tls_of(settings: Settings) -> Tls:
    """TLS for an amqps:// address, `NO_TLS` for amqp://. Raises ConfigError."""
    if settings.broker is None or not settings.broker.get_secret_value().startswith("amqps://"):
        return NO_TLS
    return Tls(_context(settings), _for_kombu(settings), f"{__name__}:NodeTransport")


class NodeTransport(SSLTransport):
    """Checks each cluster node's certificate for its own name: kombu would use the first node's
    name for all.
    """

    def establish_connection(self) -> Any:
        client: Any = self.client
        client.ssl = {**client.ssl, "server_hostname": client.hostname}
        return super().establish_connection()  # type: ignore[no-untyped-call]


def _context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.broker_ca)
    except OSError as error:
        problem = (
            f"PROOFLOOP_BROKER_CA={str(settings.broker_ca)!r} is not a certificate file: {error}"
        )
        raise ConfigError(problem, "set it to a file with certificates in PEM format") from error
    if settings.broker_cert is not None:
        try:
            context.load_cert_chain(
                settings.broker_cert, settings.broker_key, password=_no_password
            )
        except OSError as error:
            problem = f"PROOFLOOP_BROKER_CERT and PROOFLOOP_BROKER_KEY are invalid: {error}"
            hint = (
                "set them to a certificate and its private key, both in PEM format and without a"
                " password"
            )
            raise ConfigError(problem, hint) from error
    return context


def _for_kombu(settings: Settings) -> dict[str, Any]:
    files = {
        "ca_certs": settings.broker_ca,
        "certfile": settings.broker_cert,
        "keyfile": settings.broker_key,
    }
    named = {name: str(file) for name, file in files.items() if file is not None}
    return {"cert_reqs": ssl.CERT_REQUIRED, **named}


def tls_error(error: BaseException, place: str) -> ConfigError | None:
    """The error of a connection that failed because of certificates; None for other failures,
    which a retry may fix.
    """
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            hint = NAME_HINT if one.verify_code in NAME_MISMATCHES else AUTHORITY_HINT
            problem = (
                f"the certificate of the broker at {place} is not trusted: {one.verify_message}"
            )
            return ConfigError(problem, hint)
        for alert, meaning in ALERTS.items():
            if alert in repr(one):  # pika keeps the alert as text only
                return ConfigError(f"the broker at {place} {meaning}", CLIENT_HINT)
    return None


def late_refusal(nodes: Sequence[URLParameters], place: str) -> ConfigError | None:
    """The reason why a TLS broker ends connections after the handshake; None if certificates are
    not the reason.
    """
    for node in nodes:
        error = _silent_connection(node, node.ssl_options) if node.ssl_options else None
        if refusal := error and tls_error(error, place):
            return refusal
    return None


def _silent_connection(node: URLParameters, options: SSLOptions) -> OSError | None:
    """The error of a connection on which this side writes nothing after the handshake."""
    try:
        with (
            socket.create_connection((node.host, node.port), REFUSAL_S) as plain,
            options.context.wrap_socket(plain, server_hostname=options.server_hostname) as tls,
        ):
            tls.recv(1)
    except OSError as error:
        return error
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_password() -> str:
    """An empty password: OpenSSL would ask for one on the terminal."""
    return ""
