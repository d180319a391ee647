"""Settings come from the environment or from secret files, and never show a secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from proofloop.bus import api_url, broker_url, open_bus
from proofloop.bus.broker_connection import parse_url, where
from proofloop.bus.tls import tls_of
from proofloop.config.settings import Settings, load_settings
from proofloop.errors import ConfigError
from proofloop.store import LocalStore, open_store
from proofloop.store.s3_keys import ROLE_VARIABLES
from tests.integration.certificates import Certificates, make_certificates

TLS = SecretStr("amqps://user:word@host/")


def test_a_secret_can_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proofloop_broker").write_text("amqp://user:word@host/\n")
    monkeypatch.setenv("PROOFLOOP_SECRETS", str(tmp_path))
    broker = load_settings().broker
    assert broker is not None and broker.get_secret_value() == "amqp://user:word@host/"
    assert "user:word" not in repr(load_settings())


def test_a_folder_of_secrets_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFLOOP_SECRETS", "/nowhere")
    with pytest.raises(ConfigError, match="PROOFLOOP_SECRETS='/nowhere' is not a folder"):
        load_settings()


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFLOOP_REVIEW_TOKEN", "")
    assert load_settings().review_token is None


@pytest.mark.parametrize(("value", "sent"), [("1", True), ("0", False), ("", False)])
def test_task_events_are_sent_only_if_asked_for(
    value: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOFLOOP_TASK_EVENTS", value)
    assert load_settings().task_events is sent


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "https://user:word@host", "https://host/bucket", "ftp://host"]
)
def test_an_endpoint_is_an_address_and_nothing_else(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOFLOOP_S3_ENDPOINT", endpoint)
    with pytest.raises(ConfigError, match="PROOFLOOP_S3_ENDPOINT"):
        load_settings()


def test_without_keys_outside_aws_the_error_names_both_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ROLE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"its keys are not\nhint: set .*ACCESS_KEY.* IAM role"):
        open_store(Settings(s3_endpoint="http://host:1"))


@pytest.mark.parametrize("given", ["s3_access_key", "s3_secret_key"])
def test_one_key_without_the_other_is_an_error(given: str) -> None:
    settings = Settings.model_validate({"s3_endpoint": "https://s3.amazonaws.com", given: "word"})
    with pytest.raises(ConfigError, match=f"PROOFLOOP_{given.upper()} is set, but .* is not"):
        open_store(settings)


def test_a_named_folder_is_the_store_whatever_the_environment_says(tmp_path: Path) -> None:
    assert isinstance(open_store(Settings(s3_endpoint="http://host:1"), tmp_path), LocalStore)


def test_without_a_broker_the_way_out_is_named() -> None:
    with pytest.raises(
        ConfigError, match="PROOFLOOP_BROKER is not set\nhint: set PROOFLOOP_BROKER"
    ):
        open_bus(Settings())


@pytest.mark.parametrize(
    "url", ["http://user:hidden@host", "amqp://user:hidden@host:port/", "user:hidden"]
)
def test_a_broker_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert "hidden" not in str(caught.value)


def test_the_place_of_a_broker_has_no_password() -> None:
    assert where(parse_url("amqps://user:word@host/loop")) == "host:5671, vhost loop"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    "name", ["PROOFLOOP_BROKER_CA", "PROOFLOOP_BROKER_CERT", "PROOFLOOP_BROKER_KEY"]
)
def test_a_file_that_is_not_there_is_an_error_that_names_its_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/nowhere.pem")
    with pytest.raises(
        ConfigError, match=f"{name}='/nowhere.pem' is not valid: Path does not point to a file"
    ):
        load_settings()


def test_a_key_in_the_place_of_its_file_is_not_shown(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = certificates.client_key.read_text()
    monkeypatch.setenv("PROOFLOOP_BROKER_KEY", key)
    with pytest.raises(ConfigError, match="PROOFLOOP_BROKER_KEY") as caught:
        load_settings()
    assert key.splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "missing"), [("CERT", "KEY"), ("KEY", "CERT")], ids=["certificate alone", "key alone"]
)
def test_a_client_certificate_and_its_key_come_together(
    given: str, missing: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PROOFLOOP_BROKER_{given}", str(certificates.client_certificate))
    with pytest.raises(
        ConfigError, match=f"PROOFLOOP_BROKER_{given} is set, but PROOFLOOP_BROKER_{missing} is not"
    ):
        load_settings()


def test_a_client_certificate_asks_for_an_encrypted_connection(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOFLOOP_BROKER", "amqp://user:word@host/")
    monkeypatch.setenv("PROOFLOOP_BROKER_CERT", str(certificates.client_certificate))
    monkeypatch.setenv("PROOFLOOP_BROKER_KEY", str(certificates.client_key))
    with pytest.raises(ConfigError, match="without TLS") as caught:
        load_settings()
    assert "word" not in str(caught.value)
    monkeypatch.setenv("PROOFLOOP_BROKER", "amqps://user:word@host/")
    assert load_settings().broker_key == certificates.client_key


def test_a_file_of_certificates_that_cannot_be_used_is_named(certificates: Certificates) -> None:
    wrong_authority = Settings(broker=TLS, broker_ca=certificates.client_key)
    wrong_key = Settings(
        broker=TLS, broker_cert=certificates.client_certificate, broker_key=certificates.key
    )
    with pytest.raises(ConfigError, match="PROOFLOOP_BROKER_CA"):
        tls_of(wrong_authority)
    with pytest.raises(
        ConfigError, match="PROOFLOOP_BROKER_CERT and PROOFLOOP_BROKER_KEY are invalid"
    ):
        tls_of(wrong_key)


def test_a_key_with_a_password_is_an_error_and_no_question(
    certificates: Certificates, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    lock = [
        "openssl",
        "pkey",
        "-in",
        certificates.client_key,
        "-aes256",
        "-passout",
        "pass:word",
        "-out",
        locked,
    ]
    subprocess.run(lock, check=True)
    with pytest.raises(ConfigError, match=r"are invalid(.|\n)*without a password"):
        tls_of(Settings(broker=TLS, broker_cert=certificates.client_certificate, broker_key=locked))


@pytest.mark.parametrize("password", ["plain", "p@ss/w:rd;#%2F é?&", "$HOME'\""])
def test_a_broker_password_of_its_own_may_have_any_character(password: str) -> None:
    settings = Settings(
        broker=SecretStr("amqp://user@a:5672/%2F;amqp://user@b:5672/%2F"),
        broker_api=SecretStr("http://user@a:15672"),
        broker_password=SecretStr(password),
    )
    nodes = parse_url(broker_url(settings))
    read = [(one.host, one.credentials.username, one.credentials.password) for one in nodes]
    assert read == [("a", "user", password), ("b", "user", password)]
    api = api_url(settings)
    assert api is not None and httpx.URL(api).password == password


def test_a_password_inside_the_address_counts() -> None:
    settings = Settings(broker=TLS, broker_password=SecretStr("other"))
    assert broker_url(settings) == TLS.get_secret_value()
