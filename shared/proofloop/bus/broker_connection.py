"""Connections to the broker: parses its address, translates its errors, and keeps a connection
alive in a thread.

A pika connection may be used by one thread only. Other threads pass functions to that thread by
`call`.
"""

from __future__ import annotations

import itertools
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from amqp.exceptions import AccessRefused, NotAllowed, PreconditionFailed
from pika import BlockingConnection, SelectConnection, SSLOptions, URLParameters
from pika.adapters.utils.connection_workflow import (
    AMQPConnectorException,
    AMQPConnectorPhaseErrorBase,
    AMQPConnectorStackTimeout,
)
from pika.channel import Channel
from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from proofloop.bus.tls import late_refusal, tls_error
from proofloop.errors import BusError, ConfigError, ProofloopError

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
"""The backoff between attempts to reconnect: doubled each time, with jitter, to spread the load of
many workers.
"""

BEAT_S = 1.0
"""How often an open connection shows that its thread runs."""

STALLED_S = 150.0
"""A thread without activity for this long is stuck. It is longer than the detection of a lost
broker.
"""

HEARTBEAT_S = 30
"""AMQP heartbeat: a dead peer is detected within twice this time."""

REFUSED = (
    AuthenticationError,
    ProbableAuthenticationError,
    ProbableAccessDeniedError,
    AccessRefused,
    NotAllowed,
)
"""The errors of both clients when the broker refuses the user or the vhost."""


def parse_url(url: str, tls: ssl.SSLContext | None = None) -> list[URLParameters]:
    """The parameters of each address in "amqp://...;amqp://...", the nodes of one cluster.

    `tls` is for amqps://; without it pika creates a context. Raises ConfigError, which never shows
    the URL because it has a password.
    """
    hint = (
        "write it as amqp://user:password@host:5672/vhost, or amqps:// for TLS; write / in a vhost"
        " as %2F, and other special characters alike"
    )
    return [_parse(one.strip(), tls, hint) for one in url.split(";")]


def _parse(url: str, tls: ssl.SSLContext | None, hint: str) -> URLParameters:
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigError("PROOFLOOP_BROKER is not an amqp:// or amqps:// URL", hint)
    try:
        parameters = URLParameters(url)
    except (ValueError, TypeError) as error:
        raise ConfigError("PROOFLOOP_BROKER is not a valid URL", hint) from error
    parameters.heartbeat = HEARTBEAT_S
    if tls is not None and parameters.ssl_options is not None:
        parameters.ssl_options = SSLOptions(tls, parameters.host)
    return parameters


def where(nodes: Sequence[URLParameters]) -> str:
    """The broker's hosts and vhost, without secrets."""
    return (
        f"{', '.join(f'{node.host}:{node.port}' for node in nodes)}, vhost {nodes[0].virtual_host}"
    )


def connect(nodes: Sequence[URLParameters]) -> BlockingConnection:
    """A short-lived connection. Raises ConfigError if the broker refuses it, BusError if it is
    unavailable.
    """
    try:
        return BlockingConnection(list(nodes))
    # a timeout during the handshake is not an AMQPError
    except (AMQPError, AMQPConnectorException, OSError) as error:
        raise broker_error(error, nodes) from error


def broker_error(error: Exception, nodes: Sequence[URLParameters]) -> ProofloopError:
    """Translate an error of either client: ConfigError if the user must correct something, else
    BusError.
    """
    place = where(nodes)
    if isinstance(error, REFUSED):
        return ConfigError(
            f"the broker at {place} refuses this user or vhost", "correct PROOFLOOP_BROKER"
        )
    if isinstance(error, PreconditionFailed):
        return ConfigError(
            f"the broker has a queue or exchange of this name with other settings:"
            f" {error.reply_text}",
            "drain and delete it, or set another PROOFLOOP_NAMESPACE",
        )
    return (
        tls_error(error, place)
        or late_refusal(nodes, place)
        or BusError(f"the broker at {place} does not answer: {_described(error)}")
    )


def _described(error: BaseException) -> str:
    """The reason, without pika's wrapper of a socket error and its details of a timeout."""
    wrapped = error.args[0] if error.args else None
    if isinstance(wrapped, AMQPConnectorPhaseErrorBase):
        error = wrapped.exception
    if isinstance(error, AMQPConnectorStackTimeout):
        return "timed out"
    return str(error) or type(error).__name__


class BrokerConnection:
    """Keeps a connection open: calls `prepare`, opens a channel and passes it to `opened`. After a
    lost connection it calls `lost` and reconnects.

    `opened` and all functions passed to `call` run on the connection's own thread.
    """

    def __init__(
        self,
        name: str,
        nodes: Sequence[URLParameters],
        *,
        prepare: Callable[[], None],
        opened: Callable[[Channel], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._nodes, self._prepare, self._opened, self._lost = nodes, prepare, opened, lost
        self._turn = itertools.cycle(nodes)
        self._lock = threading.Lock()
        self._connection: SelectConnection | None = None
        self._actions: list[Callable[[], object]] = []
        self._closing = threading.Event()
        self._was_up = False
        self._reason: object = ""
        self._beat_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"amqp-{name}", daemon=True)
        self._thread.start()

    def call(self, action: Callable[[], object]) -> bool:
        """Run the action on the connection's thread, in order; false if there is no connection
        now.
        """
        with self._lock:
            if self._connection is None:
                return False
            self._actions.append(action)
            if len(self._actions) == 1:  # each wake-up of the thread costs a system call
                self._connection.ioloop.add_callback_threadsafe(self._act)
            return True

    @property
    def problem(self) -> str:
        """The reason why this connection cannot recover by itself; empty if it can."""
        if not self._thread.is_alive():
            return f"the thread {self._thread.name} ended"
        silent_s = time.monotonic() - self._beat_s
        return (
            f"the thread {self._thread.name} has been stuck for {silent_s:.0f} s"
            if silent_s > STALLED_S
            else ""
        )

    def _act(self) -> None:
        with self._lock:
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def reopen(self, reason: str) -> None:
        """Close the connection and open a new one. Call it on the connection's thread only."""
        self._reason = reason
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Close after all functions passed to `call`."""
        self._closing.set()
        self.call(lambda: self.reopen("closed"))
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closing.is_set():
            self._was_up, self._reason = False, ""
            self._beat_s = time.monotonic()
            try:
                self._prepare()
                self._live()
            except (AMQPError, OSError, ProofloopError) as error:
                self._reason = error
            except Exception as error:  # without this thread the worker would never reconnect
                log.exception("broker_connection_failed")
                self._reason = error
            pause_s = FIRST_PAUSE_S if self._was_up else min(2 * pause_s, LONGEST_PAUSE_S)
            if not self._closing.is_set():
                wait_s = pause_s * random.uniform(0.5, 1.0)
                log.warning(
                    "broker_lost",
                    broker=where(self._nodes),
                    reason=str(self._reason),
                    retry_in_s=wait_s,
                )
                self._closing.wait(wait_s)

    def _live(self) -> None:
        """Run one connection from its start to its end."""
        connection = SelectConnection(
            next(self._turn),
            on_open_callback=self._open_channel,
            on_open_error_callback=self._end,
            on_close_callback=self._end,
        )
        try:
            connection.ioloop.start()
        finally:
            with self._lock:
                self._connection, self._actions = None, []
            self._lost()
            connection.ioloop.close()

    def _open_channel(self, connection: SelectConnection) -> None:
        connection.channel(on_open_callback=lambda channel: self._use(connection, channel))

    def _use(self, connection: SelectConnection, channel: Channel) -> None:
        channel.add_on_close_callback(lambda _, reason: self.reopen(str(reason)))
        with self._lock:
            self._connection = connection
        self._was_up = True
        self._beat(connection)
        self._opened(channel)
        if self._closing.is_set():  # `close` was called before the connection was open
            self.reopen("closed")

    def _beat(self, connection: SelectConnection) -> None:
        self._beat_s = time.monotonic()
        connection.ioloop.call_later(BEAT_S, lambda: self._beat(connection))

    def _end(self, connection: SelectConnection, reason: BaseException) -> None:
        self._reason = self._reason or reason
        connection.ioloop.stop()
