"""The message bus."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from proofloop.bus.base import ACK, DELIVERY_LIMIT, Bus, BusState, DeadLetter, Delivery, Outcome
from proofloop.bus.local import LocalBus
from proofloop.errors import ConfigError, install_hint
from proofloop.settings import Settings

if TYPE_CHECKING:
    from proofloop.bus.dead_letters import DeadLetters

__all__ = [
    "ACK",
    "DELIVERY_LIMIT",
    "Bus",
    "BusState",
    "DeadLetter",
    "Delivery",
    "LocalBus",
    "Outcome",
    "check_broker",
    "open_bus",
    "open_dead_letters",
]

NEEDED_BY_ALL = ("generator", "verifier", "meta_verifier", "labeler")
"""The roles without which no run goes on: their queues are there whoever comes first."""


def open_bus(settings: Settings, *, roles: Iterable[str] = NEEDED_BY_ALL, connect_s: float = 15.0) -> Bus:
    """The bus on the broker, with the queues of these roles.

    Raises ConfigError, or BusError when the broker does not answer within `connect_s`.
    """
    url = _broker(settings)
    from proofloop.bus.rabbitmq import RabbitBus

    return RabbitBus(url, namespace=settings.namespace, roles=roles, connect_s=connect_s)


def open_dead_letters(settings: Settings) -> DeadLetters:
    """The broker's dead letters. Raises ConfigError."""
    url = _broker(settings)
    from proofloop.bus.dead_letters import DeadLetters

    return DeadLetters(url, namespace=settings.namespace)


def check_broker(settings: Settings, role: str) -> None:
    """Raises ConfigError if the broker can be seen to take messages back before the longest call is over."""
    from proofloop.bus.link import parse_url
    from proofloop.bus.management import check_consumer_timeout
    from proofloop.bus.topology import Topology

    api = settings.broker_api.get_secret_value() if settings.broker_api else None
    queue = Topology(settings.namespace).queue(role)
    check_consumer_timeout(api, parse_url(_broker(settings)).virtual_host, queue, settings.longest_call_s)


def _broker(settings: Settings) -> str:
    """The broker's URL, once it is sure that it can be used."""
    if settings.broker is None:
        raise ConfigError(
            "no broker is set",
            "set PROOFLOOP_BROKER=amqp://user:password@host:5672/vhost, or run all roles in one process: "
            "`proofloop run RUN.toml --local`",
        )
    if find_spec("pika") is None:
        raise ConfigError("the broker's client is not installed", install_hint("[cluster]"))
    return settings.broker.get_secret_value()
