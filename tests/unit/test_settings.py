"""Settings come from the environment or from secret files, and never show a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.bus import open_bus
from proofloop.bus.link import parse_url, where
from proofloop.errors import ConfigError
from proofloop.settings import Settings, load_settings
from proofloop.store import LocalStore, open_store


def test_a_secret_can_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proofloop_broker").write_text("amqp://user:word@host/\n")
    monkeypatch.setenv("PROOFLOOP_SECRETS", str(tmp_path))
    broker = load_settings().broker
    assert broker is not None and broker.get_secret_value() == "amqp://user:word@host/"
    assert "word" not in repr(load_settings())


def test_a_folder_of_secrets_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFLOOP_SECRETS", "/nowhere")
    with pytest.raises(ConfigError, match="PROOFLOOP_SECRETS='/nowhere' is no folder"):
        load_settings()


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFLOOP_OPENAI_API_KEY", "")
    assert load_settings().openai_api_key is None


@pytest.mark.parametrize(("value", "sent"), [("1", True), ("0", False), ("", False)])
def test_task_events_are_sent_only_if_asked_for(value: str, sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFLOOP_TASK_EVENTS", value)
    assert load_settings().task_events is sent


@pytest.mark.parametrize("endpoint", ["localhost:9000", "https://user:word@host", "https://host/bucket", "ftp://host"])
def test_an_endpoint_is_an_address_and_nothing_else(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFLOOP_S3_ENDPOINT", endpoint)
    with pytest.raises(ConfigError, match="PROOFLOOP_S3_ENDPOINT"):
        load_settings()


def test_an_endpoint_without_keys_is_an_error() -> None:
    with pytest.raises(ConfigError, match="without keys"):
        open_store(Settings(s3_endpoint="http://host:1"))


def test_a_named_folder_is_the_store_whatever_the_environment_says(tmp_path: Path) -> None:
    assert isinstance(open_store(Settings(s3_endpoint="http://host:1"), tmp_path), LocalStore)


def test_without_a_broker_the_way_out_is_named() -> None:
    with pytest.raises(ConfigError, match="no broker is set\nhint: set PROOFLOOP_BROKER"):
        open_bus(Settings())


@pytest.mark.parametrize("url", ["http://user:hidden@host", "amqp://user:hidden@host:port/", "user:hidden"])
def test_a_broker_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert "hidden" not in str(caught.value)


def test_the_place_of_a_broker_has_no_password() -> None:
    assert where(parse_url("amqps://user:word@host/loop")) == "host:5671, vhost loop"
