"""Certificates for tests: an authority of their own, and what it signed for a server on 127.0.0.1
and for a client.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """`ca` is what both sides trust; `pem` is the server's key and certificate in one file."""

    ca: Path
    key: Path
    certificate: Path
    pem: Path
    client_key: Path
    client_certificate: Path


def make_certificates(folder: Path) -> Certificates:
    """A new authority, a server's certificate and a client's, valid for a day."""
    ca, key, certificate, pem = (
        folder / name for name in ("ca.pem", "server.key", "server.crt", "server.pem")
    )
    ca_key, client_key, client = folder / "ca.key", folder / "client.key", folder / "client.crt"
    new = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    )
    authority = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    signed = ("-CA", ca, "-CAkey", ca_key, "-addext", "basicConstraints=critical,CA:FALSE")
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    _openssl(
        *new, "-subj", "/CN=proofloop test authority", *authority, "-keyout", ca_key, "-out", ca
    )
    _openssl(*new, "-subj", "/CN=localhost", *signed, *names, "-keyout", key, "-out", certificate)
    _openssl(*new, "-subj", "/CN=proofloop worker", *signed, "-keyout", client_key, "-out", client)
    pem.write_text(key.read_text() + certificate.read_text())
    return Certificates(ca, key, certificate, pem, client_key, client)


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
