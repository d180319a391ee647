"""Dead letters in a real broker: reading them changes nothing."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator

import pytest

from proofloop.bus.dead_letters import DeadLetters
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.errors import BusError
from proofloop.schema.events import ReviewJudged, encode
from tests.integration.processes import free_ports
from tests.integration.servers import Broker, cut_connections, delete_namespace, publish

COUNT = 30


@pytest.fixture
def letters(broker: Broker) -> Iterator[DeadLetters]:
    """Dead letters of the labeler."""
    namespace = f"dead-{uuid.uuid4().hex[:8]}"
    RabbitBus(broker.url, namespace=namespace, roles=["labeler"]).close()
    events = (ReviewJudged(run_id="r", proof_id=f"p{n}", index=0) for n in range(COUNT))
    publish(broker.url, f"{namespace}.labeler.dead", *map(encode, events))
    yield DeadLetters(broker.url, namespace=namespace)
    delete_namespace(broker.url, namespace)


def test_each_reader_sees_all_letters(letters: DeadLetters) -> None:
    for _ in range(20):
        assert len(list(letters.letters())) == COUNT


def test_a_reader_that_stops_early_leaves_all_letters_to_the_next_one(letters: DeadLetters) -> None:
    for _ in range(20):
        reading = letters.letters()
        next(reading)
        reading.close()  # type: ignore[attr-defined]
        assert len(list(letters.letters())) == COUNT


def test_letters_that_are_not_chosen_are_there_for_the_next_reader(letters: DeadLetters) -> None:
    for number in range(COUNT):
        assert letters.drop(lambda letter, id=f'"p{number}"': id in letter.body.decode()) == 1
        assert len(list(letters.letters())) == COUNT - number - 1


def test_a_connection_lost_while_reading_is_an_outage_that_callers_wait_for(
    letters: DeadLetters, broker: Broker
) -> None:
    """Not an error of the client library: `proofloop run` repeats what raises BusError."""
    reading = letters.letters()
    next(reading)
    cut_connections(broker)
    with pytest.raises(BusError, match=r"the broker at .* does not answer"):
        list(reading)
    assert len(list(letters.letters())) == COUNT


def test_a_broker_that_accepts_connections_and_stays_silent_is_an_outage() -> None:
    """For example a frozen machine, or a network that lost its route."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        letters = DeadLetters(f"amqp://guest:guest@127.0.0.1:{port}/?stack_timeout=0.2")
        with pytest.raises(BusError, match=r"the broker at .* does not answer: timed out$"):
            letters.depths()


def test_a_broker_that_is_not_there_is_an_outage_with_its_reason() -> None:
    [port] = free_ports(1)
    letters = DeadLetters(f"amqp://guest:guest@127.0.0.1:{port}/")
    with pytest.raises(BusError, match=r"does not answer: .*Connection refused$"):
        letters.depths()
