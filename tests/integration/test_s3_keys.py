"""A store without stored keys: a web identity token buys temporary ones, which a real S3 server
checks.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import urllib3
from minio.credentials.credentials import Credentials
from minio.helpers import sha256_hash
from minio.signer import sign_v4_sts
from minio.time import to_amz_date, utcnow

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, StoreError
from proofloop.store import Store, open_store, s3_keys
from tests.integration.ceph import ROLE
from tests.integration.processes import free_ports
from tests.integration.servers import S3, bucket_folder

TOKEN = "Secret-token"


class Sts(HTTPServer):
    """AWS's token service: it notes each token, and answers what `reply` returns."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StsHandler)
        self.tokens: list[str] = []
        self.reply: Callable[[], str] | None = None
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class StsHandler(BaseHTTPRequestHandler):
    server: Sts

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        assert query["Action"] == ["AssumeRoleWithWebIdentity"]
        assert query["RoleArn"] == ["arn:aws:iam::1:role/proofloop"]
        self.server.tokens += query["WebIdentityToken"]
        reply = self.server.reply
        self.send_response(200 if reply else 403)
        self.end_headers()
        self.wfile.write(reply().encode() if reply else b"AccessDenied")

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    return file


@pytest.fixture
def sts(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    """A token service, named by the variables that EKS sets in a pod."""
    with Sts() as server:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token_file))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/proofloop")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def keys_of_a_role(s3: S3, lifetime_s: float) -> str:
    """Temporary keys from the S3 server itself, in AWS's reply to a web identity token. For
    proofloop they expire after `lifetime_s`.
    """
    role = {"RoleArn": f"arn:aws:iam:::role/{ROLE}", "RoleSessionName": ROLE}
    body = urlencode({"Action": "AssumeRole", "Version": "2011-06-15", **role})
    url, now = urlsplit(s3.endpoint), utcnow()
    headers = sign_v4_sts(
        method="POST",
        url=url,
        region="us-east-1",
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "Host": url.netloc,
            "X-Amz-Date": to_amz_date(now),
        },
        credentials=Credentials(s3.access_key, s3.secret_key),
        content_sha256=sha256_hash(body),
        date=now,
    )
    reply = urllib3.request("POST", s3.endpoint, body=body, headers=headers)
    assert reply.status == 200, reply.data
    expiration = datetime.now(UTC) + timedelta(seconds=lifetime_s)
    text = reply.data.decode().replace("AssumeRole", "AssumeRoleWithWebIdentity")
    return re.sub(
        "<Expiration>.*</Expiration>",
        f"<Expiration>{expiration:%Y-%m-%dT%H:%M:%SZ}</Expiration>",
        text,
    )


def opened(endpoint: str, bucket: str = "bucket", prefix: str = "") -> Store:
    return open_store(Settings(s3_endpoint=endpoint, s3_bucket=bucket, s3_prefix=prefix))


def test_the_keys_of_a_role_open_the_store_and_are_requested_once(s3: S3, sts: Sts) -> None:
    if s3.kill is None:
        pytest.skip("this server's roles are not known")
    sts.reply = lambda: keys_of_a_role(s3, lifetime_s=3600)
    with bucket_folder(s3) as (bucket, prefix):
        store = opened(s3.endpoint, bucket, prefix)
        assert store.put_if_absent("a/k", b"x") and not store.put_if_absent("a/k", b"y")
        assert store.get("a/k") == b"x"
    assert sts.tokens == [TOKEN]


def test_expired_keys_are_renewed_with_the_token_of_that_moment(
    s3: S3, sts: Sts, token_file: Path
) -> None:
    if s3.kill is None:
        pytest.skip("this server's roles are not known")
    sts.reply = lambda: keys_of_a_role(s3, lifetime_s=0)
    with bucket_folder(s3) as (bucket, prefix):
        store = opened(s3.endpoint, bucket, prefix)
        token_file.write_text("Secret-second")
        sts.tokens.clear()
        assert store.put_if_absent("a/k", b"x")
        assert set(sts.tokens) == {"Secret-second"}
        sts.reply = None
        with pytest.raises(StoreError, match=r"unavailable: .*AWS gives no keys") as caught:
            store.get("a/k")
    assert "Secret" not in "".join(traceback.format_exception(caught.value))


def test_a_refused_token_is_not_shown(sts: Sts) -> None:
    with pytest.raises(ConfigError, match=r"failed with HTTP status code 403\nhint") as caught:
        opened("https://s3.eu-west-1.amazonaws.com")
    assert sts.tokens == [TOKEN]
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("is_silent", [False, True])
def test_on_a_machine_without_a_role_the_error_comes_soon_and_names_both_ways_out(
    is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in s3_keys.ROLE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(s3_keys, "READ_S", 0.2)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # accepts, never answers
        port = silent.server_port if is_silent else free_ports(1)[0]
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(
            ConfigError, match=r"gives no keys for a role: .*\nhint: set .* or give .* role"
        ):
            opened("https://s3.eu-west-1.amazonaws.com")
        assert time.monotonic() - began < 2
