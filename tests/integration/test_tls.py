"""Broker and store by TLS with a private authority; a client that does not trust it gets a hint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import pytest
import urllib3
from pydantic import SecretStr

from proofloop.bus import open_bus
from proofloop.bus.broker_connection import broker_error, connect, parse_url
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.tls import tls_of
from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, StoreError
from proofloop.schema.events import ReviewJudged
from proofloop.store import open_store
from proofloop.store.minio import MinioStore
from tests.integration.certificates import Certificates, make_certificates
from tests.integration.processes import folder
from tests.integration.rabbitmq import CONFIGURATION, RABBITMQ, Node, running_node
from tests.integration.servers import S3, Broker, bucket_folder, delete_namespace, install

ASKING = CONFIGURATION.replace("fail_if_no_peer_cert = false", "fail_if_no_peer_cert = true")
UNNAMED = "127.0.0.2"
"""An address of this machine that no certificate of ours names."""


@pytest.fixture
def tls_broker(broker: Broker) -> Broker:
    if not broker.tls_url:
        pytest.skip("this broker's TLS listener is not known")
    return broker


@pytest.fixture
def tls_s3(s3: S3) -> S3:
    if not s3.tls_endpoint:
        pytest.skip("this store's TLS listener is not known")
    return s3


def test_events_travel_by_tls(tls_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", tls_broker.authority)
    bus = open_bus(Settings(broker=tls_broker.tls_url, namespace="tls-test"))
    assert isinstance(bus, RabbitBus)
    bus.publish([ReviewJudged(run_id="r", proof_id="p", index=0)])
    bus.close()
    delete_namespace(tls_broker.url, "tls-test")


def test_a_broker_whose_authority_is_not_trusted_is_refused_with_the_way_out(
    tls_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(ConfigError, match=r"certificate.*\nhint: .*SSL_CERT_FILE") as caught:
        open_bus(Settings(broker=tls_broker.tls_url), connect_s=0.0)
    assert "guest:" not in str(caught.value)


@pytest.fixture(scope="module")
def asking() -> Iterator[Node]:
    """A broker that requires a client certificate."""
    if not RABBITMQ.exists() and not install("rabbitmq-server"):
        pytest.skip("no real server: apt could not install RabbitMQ, whose TLS this test sets up")
    configuration = ASKING + f"listeners.ssl.2 = {UNNAMED}:{{ports.tls}}\n"
    with folder("proofloop-asking-") as place, running_node(place, configuration) as node:
        yield node


def connect_pika(settings: Settings) -> None:
    assert settings.broker is not None
    connect(parse_url(settings.broker.get_secret_value(), tls_of(settings).context)).close()


def connect_kombu(settings: Settings) -> None:
    """As each process does at its start."""
    open_bus(settings.model_copy(update={"namespace": "tls-clients"}), connect_s=0.0).close(
        grace_s=5.0
    )


Connect = Callable[[Settings], None]
each_client = pytest.mark.parametrize("connect_by", [connect_pika, connect_kombu])


@each_client
def test_a_client_certificate_opens_a_broker_that_asks_for_one(
    asking: Node, connect_by: Connect
) -> None:
    connect_by(settings_for(asking, asking.certificates))


@each_client
def test_who_has_no_client_certificate_is_refused_with_the_way_out(
    asking: Node, connect_by: Connect
) -> None:
    refused = refused_by(connect_by, settings_for(asking))
    assert (
        "requires a client certificate" in refused.problem
        and "PROOFLOOP_BROKER_CERT" in refused.hint
    )


def test_a_reset_connection_gets_the_reason_from_a_connection_that_only_reads(
    asking: Node, tmp_path: Path
) -> None:
    """A client that writes before it has read the broker's refusal sees a reset."""

    def reason(client: Certificates | None) -> str:
        settings = settings_for(asking, client)
        assert settings.broker is not None
        nodes = parse_url(settings.broker.get_secret_value(), tls_of(settings).context)
        return str(broker_error(ConnectionResetError("reset"), nodes))

    assert "requires a client certificate" in reason(None)
    assert "does not trust this client certificate" in reason(make_certificates(tmp_path))
    assert "does not answer: reset" in reason(asking.certificates)


@each_client
def test_a_client_certificate_of_another_authority_is_refused(
    asking: Node, connect_by: Connect, tmp_path: Path
) -> None:
    refused = refused_by(connect_by, settings_for(asking, make_certificates(tmp_path)))
    assert "does not trust this client certificate" in refused.problem


@each_client
def test_a_broker_whose_certificate_names_another_host_is_refused(
    asking: Node, connect_by: Connect
) -> None:
    refused = refused_by(connect_by, settings_for(asking, asking.certificates, host=UNNAMED))
    assert f"not valid for '{UNNAMED}'" in refused.problem and "PROOFLOOP_BROKER" in refused.hint


@each_client
def test_a_broker_of_an_unknown_authority_is_refused(
    asking: Node, connect_by: Connect, tmp_path: Path
) -> None:
    settings = settings_for(asking, asking.certificates)
    for other in (None, make_certificates(tmp_path).ca):
        refused = refused_by(connect_by, settings.model_copy(update={"broker_ca": other}))
        assert "is not trusted" in refused.problem and "PROOFLOOP_BROKER_CA" in refused.hint


def test_each_node_of_a_cluster_is_checked_under_its_own_name(asking: Node) -> None:
    """The first address is refused, for its certificate does not name it; the second one is
    used.
    """
    settings = settings_for(asking, asking.certificates)
    assert settings.broker is not None
    one = settings.broker.get_secret_value()
    two = settings.model_copy(
        update={"broker": SecretStr(f"{one.replace('127.0.0.1', UNNAMED)};{one}")}
    )
    bus = open_bus(two.model_copy(update={"namespace": "tls-nodes"}))
    bus.publish([ReviewJudged(run_id="r", proof_id="p", index=0)])
    bus.close(grace_s=5)


@pytest.mark.parametrize("command", ["proofloop", "celery"])
def test_a_worker_serves_by_tls(asking: Node, tmp_path: Path, command: str) -> None:
    """The consuming side, control commands and events too."""
    settings = settings_for(asking, asking.certificates)
    assert settings.broker is not None
    where = {
        "BROKER": settings.broker.get_secret_value(),
        "BROKER_CA": settings.broker_ca,
        "STORE": tmp_path,
    }
    where |= {
        "BROKER_CERT": settings.broker_cert,
        "BROKER_KEY": settings.broker_key,
        "NAMESPACE": f"tls-{command}",
    }
    environment = {
        **os.environ,
        **{f"PROOFLOOP_{name}": str(value) for name, value in where.items()},
    }
    of_celery = "-q -A proofloop.worker.service worker -c 1 -Q tls-celery.labeler"
    words = {"proofloop": "serve labeler", "celery": of_celery}[command].split()
    program = Path(sys.executable).with_name(command)
    with subprocess.Popen(
        [program, *words], env=environment, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline())["ready"] == "labeler"
        worker.terminate()
    assert worker.returncode == 0


def settings_for(
    node: Node, client: Certificates | None = None, host: str = "127.0.0.1"
) -> Settings:
    files = (
        {"broker_cert": client.client_certificate, "broker_key": client.client_key}
        if client
        else {}
    )
    url = node.tls_url.replace("127.0.0.1", host)
    return Settings.model_validate({"broker": url, "broker_ca": node.certificates.ca, **files})


def refused_by(connect_by: Connect, settings: Settings) -> ConfigError:
    """Why the broker cannot be used with these settings, from the first attempt."""
    with pytest.raises(ConfigError) as caught:
        connect_by(settings)
    return caught.value


def test_objects_travel_by_tls(tls_s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", tls_s3.authority)
    with bucket_folder(tls_s3) as (bucket, prefix):
        store = open_store(_settings(tls_s3, bucket, prefix))
        assert store.put_if_absent("a/k", b"x") and not store.put_if_absent("a/k", b"y")
        assert store.get("a/k") == b"x"


def test_a_store_whose_authority_is_not_trusted_is_refused_with_the_way_out(
    tls_s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(ConfigError, match=r"certificate.*\nhint: .*SSL_CERT_FILE") as caught:
        open_store(_settings(tls_s3, "proofloop-test", ""))
    assert tls_s3.secret_key not in str(caught.value)


def test_a_certificate_that_goes_wrong_later_means_that_the_store_is_away(
    tls_s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", tls_s3.authority)
    with bucket_folder(tls_s3) as (bucket, prefix):
        store = open_store(_settings(tls_s3, bucket, prefix))
        assert isinstance(store, MinioStore)
        store._client._http = urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED", ca_certs=certifi.where(), retries=False
        )
        with pytest.raises(StoreError, match=r"certificate.*; set SSL_CERT_FILE"):
            store.put_if_absent("a/k", b"x")


def _settings(s3: S3, bucket: str, prefix: str) -> Settings:
    keys = {"s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key}
    return Settings.model_validate(
        {"s3_endpoint": s3.tls_endpoint, "s3_bucket": bucket, "s3_prefix": prefix, **keys}
    )
