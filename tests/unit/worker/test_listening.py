"""The addresses that a process serves its pages on."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import httpx
import pytest
from prometheus_client import CollectorRegistry

from proofloop.config.settings import Settings
from proofloop.worker.health import Health, MonitoringServer
from proofloop.worker.listening import listen

ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=ipv6)])
def test_the_health_pages_listen_on_all_addresses_by_default(host: str) -> None:
    with listen("", 0) as free:
        port = free.getsockname()[1]
    MonitoringServer(Settings().metrics_host, port, CollectorRegistry(), Health())
    assert httpx.get(f"http://{host}:{port}/healthz").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6)])
def test_a_given_address_is_the_only_one(host: str) -> None:
    with listen(host, 0) as listening:
        assert ip_address(listening.getsockname()[0]) == ip_address(host)
