"""Certificates for servers of tests: an authority of their own, and what it signed for 127.0.0.1."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """`ca` is what clients trust; `pem` is the server's key and certificate in one file."""

    ca: Path
    key: Path
    certificate: Path
    pem: Path


def make_certificates(folder: Path) -> Certificates:
    """A new authority and a server's certificate, valid for a day."""
    ca, key, certificate, pem = (folder / name for name in ("ca.pem", "server.key", "server.crt", "server.pem"))
    ca_key = folder / "ca.key"
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    authority = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    server = ("-CA", ca, "-CAkey", ca_key, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    usage = ("-addext", "basicConstraints=critical,CA:FALSE")
    _openssl(*new, "-subj", "/CN=proofloop test authority", *authority, "-keyout", ca_key, "-out", ca)
    _openssl(*new, "-subj", "/CN=localhost", *server, *usage, "-keyout", key, "-out", certificate)
    pem.write_text(key.read_text() + certificate.read_text())
    return Certificates(ca, key, certificate, pem)


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
