"""Model calls in flight. A redelivered message starts and pays no second call.

In the same process the redelivered message joins the running call: both messages get the same
answer. Between processes a lease in the store shows which calls run. A process lists the calls that
have run for a while, and all its calls once it has lost its connection, because the broker then
delivers their messages to others. It renews the list while they run. The lease belongs to the
process: a thousand calls cost one request.

A lease ends by the wall clock, so the machines' clocks must agree within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from proofloop.engine.base import Call, Generation
from proofloop.errors import Retry, StoreError
from proofloop.schema import keys
from proofloop.schema.records import Record
from proofloop.store import Store
from proofloop.store.holder import this_process
from proofloop.store.renewed import Renewed, newest

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True)
class LeaseTimes:
    """All in seconds."""

    begin_s: float = 30.0
    """A call that has run for this long gets into the lease: shorter calls cost no store
    request.
    """

    last_s: float = 60.0
    """How long a lease is valid after it was written: so long others wait for a holder that was
    killed.
    """

    renew_s: float = 15.0
    """Between two writes of a lease; several of them may fail before it ends."""

    watch_s: float = 0.2
    """How often a process looks whether it lost its connection or must renew."""

    look_s: float = 2.0
    """How long a redelivered message looks for a lease: longer than `watch_s` and one write to the
    store.
    """

    look_every_s: float = 0.25
    """What the other processes hold is read at most this often, by one thread for all."""

    away_s: float = 1.0
    """After a failed write the lease is written again in this time."""

    forget_s: float = 600.0
    """Delete a lease that ended this long ago: its holder was killed."""


DEFAULT_TIMES = LeaseTimes()

LONGEST_END_S = 5.0
"""How long the end of a process waits until its lease is given up; else the lease runs out by
itself.
"""

KEPT = 2
"""A process keeps this many of its leases in the store: another may be about to read the last but
one.
"""


class LookAgain(Exception):
    """Call the handler once more: its output may have been stored since the handler looked for
    it.
    """


@dataclass
class _Running:
    """One call of the engine, and the number of messages that wait for it."""

    key: str
    users: int = 0
    began_s: float = field(default_factory=time.monotonic)
    call: Call | None = None
    outcome: Future[Any] = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)


class JoinedCall:
    """One message's part in a call, which other messages may share."""

    def __init__(self, running: _Running, leave: Callable[[_Running], None]) -> None:
        self.is_first = False
        """Whether this message made of the engine's answer what all get."""
        self._running, self._leave = running, leave
        self._is_left = False

    def begin(self, submit: Callable[[], Call]) -> None:
        """Call the engine, unless another message has begun the call."""
        with self._running.lock:
            if self._running.call is None:
                self._running.call = submit()

    def result(self) -> Generation:
        """Wait for the engine's answer. Raises EngineError."""
        assert self._running.call is not None
        return self._running.call.result()

    def when_done(self, callback: Callable[[], None]) -> None:
        assert self._running.call is not None
        self._running.call.when_done(callback)

    def once(self, make: Callable[[], T]) -> T:
        """The first message's result of the engine's answer, or its error; shared by all
        messages.
        """
        outcome = self._running.outcome
        with self._running.lock:
            if not outcome.done():
                self.is_first = True
                try:
                    outcome.set_result(make())
                except Exception as error:
                    outcome.set_exception(error)
        made: T = outcome.result()
        return made

    def cancel(self) -> None:
        """Withdraw from the call. The last withdrawal cancels it. Safe to call twice."""
        if not self._is_left:
            self._is_left = True
            self._leave(self._running)


@dataclass
class _Message:
    """The message that this thread handles. `must_look`: another process may work on it."""

    must_look: bool
    look_s: float
    stopping: threading.Event
    joined: list[JoinedCall] = field(default_factory=list)


_message: ContextVar[_Message | None] = ContextVar("message", default=None)


class RunningCalls:
    """The calls of this process. Without `leases` no other process works on the same messages."""

    def __init__(self, leases: Leases | None = None) -> None:
        self._leases = leases
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    @contextmanager
    def message(
        self, *, redelivered: bool, attempt: int, stopping: threading.Event
    ) -> Iterator[None]:
        """Handle a message in this block. Other messages can join its calls until the block ends:
        by then their answers are stored.

        A first delivery does not look for leases. A redelivered message looks for a while. The copy
        of a message that a lease postponed is not redelivered but has an attempt above 1: it looks
        once.
        """
        look_s = self._leases.times.look_s if self._leases and redelivered else 0.0
        must_look = self._leases is not None and (redelivered or attempt > 1)
        message = _Message(must_look, look_s, stopping)
        token = _message.set(message)
        try:
            yield
        finally:
            _message.reset(token)
            for joined in message.joined:
                joined.cancel()

    def join(self, key: str, submit: Callable[[], Call]) -> JoinedCall:
        """Join the running call with that key, or make a new one. Outside of a message no call is
        shared. Raises Retry if another process has a lease on the call, LookAgain before a
        redelivered message's first call.
        """
        message = _message.get()
        if message is None:
            joined = JoinedCall(_Running(key, users=1), self._leave)
        else:
            if message.must_look and key not in self._running:
                self._look(key, message)
            joined = JoinedCall(self._take_part(key), self._leave)
            message.joined.append(joined)
        joined.begin(submit)
        return joined

    def begun(self) -> dict[str, float]:
        """The start of each call, on the monotonic clock."""
        with self._lock:
            return {key: running.began_s for key, running in self._running.items()}

    def _look(self, key: str, message: _Message) -> None:
        """Look for leases first, then for the output: a holder stores its answer before its lease
        ends.
        """
        assert self._leases is not None
        self._leases.look(key, message.look_s, message.stopping)
        message.must_look = False
        raise LookAgain

    def _take_part(self, key: str) -> _Running:
        with self._lock:
            running = self._running.setdefault(key, _Running(key))
            running.users += 1
        if running.users > 1:
            log.info("call_joined", call=key)
        return running

    def _leave(self, running: _Running) -> None:
        with self._lock:
            running.users -= 1
            if running.users:
                return
            if self._running.get(running.key) is running:
                del self._running[running.key]
        if running.call is not None and not running.outcome.done():
            running.call.cancel()


class Lease(Record):
    """The calls of one process, which others must not repeat before it ends, in seconds of Unix
    time.
    """

    holder: str
    until_s: float
    calls: tuple[str, ...]


class Leases:
    """The lease of this process, and those of the others. `losses` counts its lost connections (see
    `Bus.losses`).
    """

    def __init__(
        self, store: Store, losses: Callable[[], int], times: LeaseTimes = DEFAULT_TIMES
    ) -> None:
        self.times = times
        self._store, self._losses = store, losses
        self._own = Renewed(store, keys.LEASES, "lease", kept=KEPT)
        self._seen_losses = losses()
        self._lost_s = -1.0
        """When the connection was last lost: calls that began before are in the lease."""
        self._held: tuple[str, ...] = ()
        self._due_s = time.monotonic() + times.renew_s
        self._is_away = False
        self._others: dict[str, Lease] | StoreError = {}
        self._read_s = float("-inf")
        self._reading = threading.Lock()

    # -- what the others hold

    def look(self, key: str, for_s: float, stopping: threading.Event) -> None:
        """Look for a lease on the call. Raises Retry if there is one, or if the process stops
        meanwhile.
        """
        deadline_s = time.monotonic() + for_s
        while True:
            self._check(key)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return
            if stopping.wait(min(left_s, self.times.look_every_s)):
                raise Retry("the process is stopping", after_s=0.0)

    def _check(self, key: str) -> None:
        lease = self._of_others().get(key)
        left_s = lease.until_s - time.time() if lease else 0.0
        if lease and left_s > 0:
            raise Retry(
                f"{lease.holder} waits for this answer", after_s=min(left_s, self.times.last_s)
            )

    def _of_others(self) -> dict[str, Lease]:
        """The calls of other processes. One thread reads them for all messages that look at the
        same time.
        """
        with self._reading:
            if time.monotonic() - self._read_s >= self.times.look_every_s:
                try:
                    self._others = self._read()
                except StoreError as error:
                    self._others = error
                self._read_s = time.monotonic()
            found = self._others
        if isinstance(found, StoreError):
            raise found
        return found

    def _read(self) -> dict[str, Lease]:
        calls: dict[str, Lease] = {}
        for process, lease in newest(self._store, keys.LEASES, Lease, but=self._own.process):
            if lease.until_s + self.times.forget_s < time.time():
                self._store.delete_prefix(keys.renewed_by(keys.LEASES, process))
            else:
                calls.update(dict.fromkeys(lease.calls, lease))
        return calls

    # -- what this process holds

    def watch(self, calls: RunningCalls, ending: threading.Event) -> None:
        """Write and renew the lease until `ending`, then delete it."""
        while not ending.wait(self.times.watch_s):
            self._try(lambda: self._renew(calls))
        if self._held:
            self._try(self._own.delete)

    def _try(self, action: Callable[[], object]) -> None:
        """Write the lease; continue after any error. The calls continue while the store is
        unavailable.
        """
        try:
            action()
        except Exception as error:
            if not self._is_away:
                log.warning("lease_not_renewed", reason=f"{type(error).__name__}: {error}")
            self._is_away = True
            self._due_s = time.monotonic() + self.times.away_s

    def _renew(self, calls: RunningCalls) -> None:
        now_s, losses = time.monotonic(), self._losses()
        if losses > self._seen_losses:
            self._seen_losses, self._lost_s, self._due_s = losses, now_s, now_s
        if now_s < self._due_s:
            return
        begun_before_s = max(now_s - self.times.begin_s, self._lost_s)
        held = tuple(key for key, began_s in calls.begun().items() if began_s <= begun_before_s)
        if held:
            self._write(held)
        elif self._held:
            self._own.delete()
        self._held, self._is_away, self._due_s = held, False, now_s + self.times.renew_s

    def _write(self, held: tuple[str, ...]) -> None:
        until_s = time.time() + self.times.last_s
        self._own.write(Lease(holder=this_process(), until_s=until_s, calls=held))


@contextmanager
def leased_calls(
    store: Store, losses: Callable[[], int], times: LeaseTimes = DEFAULT_TIMES
) -> Iterator[RunningCalls]:
    """The calls of a process that shares its messages with others. Its lease ends with the
    block.
    """
    leases, ending = Leases(store, losses, times), threading.Event()
    calls = RunningCalls(leases)
    thread = threading.Thread(target=leases.watch, args=(calls, ending), name="leases", daemon=True)
    thread.start()
    try:
        yield calls
    finally:
        ending.set()
        thread.join(LONGEST_END_S)
