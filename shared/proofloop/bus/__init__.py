"""Events between roles: opens the bus, the worker's Celery application, and the dead letters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from proofloop.bus.base import ACK, DELIVERY_LIMIT, Bus, BusState, DeadLetter, Delivery, Outcome
from proofloop.bus.local import LocalBus
from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, install_hint
from proofloop.schema.records import PIPELINE_ROLES

if TYPE_CHECKING:
    from celery import Celery

    from proofloop.bus.celery_bus import CeleryBus, OpenService
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
    "api_url",
    "broker_url",
    "check_broker",
    "make_app",
    "open_bus",
    "open_dead_letters",
    "open_worker_bus",
]

START_S = 120.0
"""How long a starting service waits for its broker, which often starts at the same time."""


def open_bus(
    settings: Settings, *, roles: Iterable[str] = PIPELINE_ROLES, connect_s: float = 15.0
) -> Bus:
    """A bus that publishes on the broker, after declaring the queues of these roles. Each process
    declares at least those of PIPELINE_ROLES.

    Raises ConfigError, or BusError if the broker does not answer within `connect_s`.
    """
    url = broker_url(settings)
    from proofloop.bus.rabbitmq import RabbitBus
    from proofloop.bus.tls import tls_of

    return RabbitBus(
        url, namespace=settings.namespace, roles=roles, connect_s=connect_s, tls=tls_of(settings)
    )


def open_worker_bus(
    settings: Settings, app: Celery, *, roles: Iterable[str], connect_s: float
) -> CeleryBus:
    """The bus of a Celery worker that serves a role. Raises the errors of `open_bus`."""
    from proofloop.bus.celery_bus import CeleryBus
    from proofloop.bus.tls import tls_of

    url, tls = broker_url(settings), tls_of(settings)
    return CeleryBus(
        url, app=app, namespace=settings.namespace, roles=roles, connect_s=connect_s, tls=tls
    )


def make_app(
    settings: Settings, open_service: OpenService, set_up_logging: Callable[..., None]
) -> Celery:
    """The Celery application for this environment. Its worker opens a role's service. Raises
    ConfigError.
    """
    url = broker_url(settings)
    from celery.signals import setup_logging

    from proofloop.bus.celery_bus import make_celery
    from proofloop.bus.tls import tls_of

    setup_logging.connect(set_up_logging, weak=False)
    tls = tls_of(settings)
    chosen = {"broker_transport": tls.transport, "broker_use_ssl": tls.for_kombu}
    return make_celery(
        url,
        settings.namespace,
        open_service,
        worker_send_task_events=settings.task_events,
        **chosen,
    )


def open_dead_letters(settings: Settings) -> DeadLetters:
    """The broker's dead letters. Raises ConfigError."""
    url = broker_url(settings)
    from proofloop.bus.dead_letters import DeadLetters
    from proofloop.bus.tls import tls_of

    return DeadLetters(url, namespace=settings.namespace, tls=tls_of(settings))


def check_broker(settings: Settings, role: str) -> None:
    """Raises ConfigError if the queue's consumer timeout is known and shorter than the longest
    call.
    """
    from proofloop.bus.broker_connection import parse_url
    from proofloop.bus.management import check_consumer_timeout
    from proofloop.bus.topology import Topology

    queue = Topology(settings.namespace).queue(role).name
    vhost = parse_url(broker_url(settings))[0].virtual_host
    check_consumer_timeout(api_url(settings), vhost, queue, settings.longest_call_s)


def broker_url(settings: Settings) -> str:
    """The broker's URL. Raises ConfigError if it is not set or the clients are not installed."""
    if settings.broker is None:
        raise ConfigError(
            "PROOFLOOP_BROKER is not set",
            "set PROOFLOOP_BROKER=amqp://user:password@host:5672/vhost, or run all roles in one"
            " process: `proofloop run RUN.toml --local`",
        )
    if any(find_spec(client) is None for client in ("celery", "pika")):
        raise ConfigError("the broker's clients are not installed", install_hint("[cluster]"))
    return _with_password(settings.broker, settings.broker_password)


def api_url(settings: Settings) -> str | None:
    """The address of the broker's management API, if it is set."""
    if settings.broker_api is None:
        return None
    return _with_password(settings.broker_api, settings.broker_password)


def _with_password(addresses: SecretStr, password: SecretStr | None) -> str:
    """Insert the password into each address with a user and no password."""
    secret = quote(password.get_secret_value(), safe="") if password else ""
    return re.sub(
        r"(\w+://[^:@/;]+)@",
        lambda found: f"{found[1]}:{secret}@" if secret else found[0],
        addresses.get_secret_value(),
    )
