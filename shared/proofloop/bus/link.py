"""Connections to the broker: how its address is read, what their errors mean, and one that its own
thread keeps alive.

pika's connections belong to one thread. Other threads hand a function to that thread: `call`.
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
from pika.channel import Channel
from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from proofloop.bus.tls import refusal
from proofloop.errors import BusError, ConfigError, ProofloopError

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
"""Between attempts to reconnect: doubled each time, with jitter, so that a hundred workers do not
return at once.
"""

BEAT_S = 1.0
"""How often a connected link shows that its thread runs."""

STALLED_S = 150.0
"""A thread that did nothing for this long is wedged; to notice that a broker is away takes less."""

HEARTBEAT_S = 30
"""A dead peer is noticed within twice this time."""

REFUSED = (
    AuthenticationError,
    ProbableAuthenticationError,
    ProbableAccessDeniedError,
    AccessRefused,
    NotAllowed,
)
"""How the two clients say that the broker refuses the user or the vhost."""


def parse_url(url: str, tls: ssl.SSLContext | None = None) -> list[URLParameters]:
    """The parameters of each address in "amqp://...;amqp://...": the nodes of one cluster, tried in
    turn.

    `tls` is for amqps://; without it pika makes a context.

    Raises ConfigError, which never shows the URL: it has a password.
    """
    hint = (
        "write it as amqp://user:password@host:5672/vhost, or amqps:// for TLS; escape special"
        " characters as %2F"
    )
    return [_parse(one.strip(), tls, hint) for one in url.split(";")]


def _parse(url: str, tls: ssl.SSLContext | None, hint: str) -> URLParameters:
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigError("PROOFLOOP_BROKER is no amqp:// or amqps:// URL", hint)
    try:
        parameters = URLParameters(url)
    except (ValueError, TypeError) as error:
        raise ConfigError("PROOFLOOP_BROKER cannot be read as a URL", hint) from error
    parameters.heartbeat = HEARTBEAT_S
    if tls is not None and parameters.ssl_options is not None:
        parameters.ssl_options = SSLOptions(tls, parameters.host)
    return parameters


def where(nodes: Sequence[URLParameters]) -> str:
    """The broker's place, without its secrets."""
    return (
        f"{', '.join(f'{node.host}:{node.port}' for node in nodes)}, vhost {nodes[0].virtual_host}"
    )


def connect(nodes: Sequence[URLParameters]) -> BlockingConnection:
    """A connection for a short piece of work. Raises ConfigError when refused, BusError when the
    broker is away.
    """
    try:
        return BlockingConnection(list(nodes))
    except (AMQPError, OSError) as error:
        raise explained(error, nodes) from error


def explained(error: Exception, nodes: Sequence[URLParameters]) -> ProofloopError:
    """What an error of either client means: a ConfigError that a person must correct, else the
    broker is away.
    """
    place = where(nodes)
    if isinstance(error, REFUSED):
        return ConfigError(
            f"the broker at {place} refuses this user or vhost", "correct PROOFLOOP_BROKER"
        )
    if isinstance(error, PreconditionFailed):
        return ConfigError(
            f"the broker has a queue or exchange of ours with other settings: {error.reply_text}",
            "drain and delete it, or choose another PROOFLOOP_NAMESPACE",
        )
    return refusal(error, place) or BusError(
        f"the broker at {place} does not answer: {str(error) or type(error).__name__}"
    )


class Link:
    """Calls `prepare`, opens a channel and gives it to `opened`; when it is lost calls `lost` and
    begins again.

    `opened` and everything given to `call` run on the link's own thread.
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
        """Run the action on the link's thread, in order; false if there is no connection now."""
        with self._lock:
            if self._connection is None:
                return False
            self._actions.append(action)
            if (
                len(self._actions) == 1
            ):  # otherwise the thread has been woken already, which costs a system call
                self._connection.ioloop.add_callback_threadsafe(self._act)
            return True

    @property
    def problem(self) -> str:
        """Why this link will never come back by itself; empty while it will."""
        if not self._thread.is_alive():
            return f"the thread {self._thread.name} ended"
        silent_s = time.monotonic() - self._beat_s
        return (
            f"the thread {self._thread.name} has done nothing for {silent_s:.0f} s"
            if silent_s > STALLED_S
            else ""
        )

    def _act(self) -> None:
        with self._lock:
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def reopen(self, reason: str) -> None:
        """Give the connection up and make a new one. On the link's thread only."""
        self._reason = reason
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Close after everything that was given to `call`."""
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
            except (
                Exception
            ) as error:  # a thread that ends here would leave a worker that hears nothing
                log.exception("broker_link_failed")
                self._reason = error
            pause_s = FIRST_PAUSE_S if self._was_up else min(2 * pause_s, LONGEST_PAUSE_S)
            if not self._closing.is_set():
                wait_s = pause_s * random.uniform(0.5, 1.0)
                log.warning(
                    "broker_lost",
                    broker=where(self._nodes),
                    reason=str(self._reason),
                    again_in_s=wait_s,
                )
                self._closing.wait(wait_s)

    def _live(self) -> None:
        """One connection, from its beginning to its end."""
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
        if self._closing.is_set():  # `close` came before there was anything to close
            self.reopen("closed")

    def _beat(self, connection: SelectConnection) -> None:
        self._beat_s = time.monotonic()
        connection.ioloop.call_later(BEAT_S, lambda: self._beat(connection))

    def _end(self, connection: SelectConnection, reason: BaseException) -> None:
        self._reason = self._reason or reason
        connection.ioloop.stop()
