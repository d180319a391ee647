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
from proofloop.store import Store
from proofloop.worker.calls.call_leases import DEFAULT_TIMES, CallLeases, CallLeaseTimes

log = structlog.get_logger()

T = TypeVar("T")


LONGEST_END_S = 5.0
"""How long the end of a process waits until its lease is given up; else the lease runs out by
itself.
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

    def __init__(self, leases: CallLeases | None = None) -> None:
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


@contextmanager
def leased_calls(
    store: Store, losses: Callable[[], int], times: CallLeaseTimes = DEFAULT_TIMES
) -> Iterator[RunningCalls]:
    """The calls of a process that shares its messages with others. Its lease ends with the
    block.
    """
    leases, ending = CallLeases(store, losses, times), threading.Event()
    calls = RunningCalls(leases)
    thread = threading.Thread(
        target=leases.watch, args=(calls.begun, ending), name="leases", daemon=True
    )
    thread.start()
    try:
        yield calls
    finally:
        ending.set()
        thread.join(LONGEST_END_S)
