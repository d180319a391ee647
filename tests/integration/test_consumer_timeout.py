"""A worker refuses to start where the broker can be seen to take messages back before the longest
call is over.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from pika import BlockingConnection, URLParameters

from proofloop.bus.management import check_consumer_timeout
from proofloop.errors import BusError, ConfigError
from tests.integration.servers import Broker


@pytest.fixture
def queue(broker: Broker) -> Iterator[str]:
    """A queue whose consumers have ten minutes."""
    if not broker.api:
        pytest.skip("this broker's management API is not known")
    name = f"test-{uuid.uuid4().hex[:8]}"
    connection = BlockingConnection(URLParameters(broker.url))
    channel = connection.channel()
    arguments = {"x-queue-type": "quorum", "x-consumer-timeout": 600_000}
    channel.queue_declare(name, durable=True, arguments=arguments)
    yield name
    channel.queue_delete(name)
    connection.close()


def test_a_timeout_shorter_than_the_longest_call_is_refused(broker: Broker, queue: str) -> None:
    with pytest.raises(ConfigError, match="600 s, shorter than the longest call") as caught:
        check_consumer_timeout(broker.api, "/", queue, 601)
    assert "guest" not in str(caught.value)


def test_a_longer_one_passes_and_so_does_what_cannot_be_seen(broker: Broker, queue: str) -> None:
    check_consumer_timeout(broker.api, "/", queue, 599)
    check_consumer_timeout(None, "/", queue, 601)


def test_a_management_api_that_refuses_or_is_away_is_named_without_its_password(
    broker: Broker, queue: str
) -> None:
    with pytest.raises(ConfigError, match="refuses access: status 401") as refused:
        check_consumer_timeout(broker.api.replace("guest@", "wrong-word@"), "/", queue, 1)
    with pytest.raises(BusError, match="does not answer") as away:
        check_consumer_timeout("http://guest:wrong-word@127.0.0.1:9", "/", queue, 1)
    assert "wrong-word" not in f"{refused.value} {away.value}"
