"""Broker and store by TLS, with an authority of one's own; whoever does not trust it is told how to."""

from __future__ import annotations

import certifi
import pytest
import urllib3

from proofloop.bus import open_bus
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.errors import ConfigError, StoreError
from proofloop.messages import ReviewJudged
from proofloop.settings import Settings
from proofloop.store import open_store
from proofloop.store.minio import MinioStore
from tests.integration.servers import S3, Broker, bucket_folder, delete_namespace


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
        store._client._http = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=certifi.where(), retries=False)
        with pytest.raises(StoreError, match=r"certificate.*; set SSL_CERT_FILE"):
            store.put_if_absent("a/k", b"x")


def _settings(s3: S3, bucket: str, prefix: str) -> Settings:
    keys = {"s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key}
    return Settings.model_validate({"s3_endpoint": s3.tls_endpoint, "s3_bucket": bucket, "s3_prefix": prefix, **keys})
