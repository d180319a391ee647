"""The leases of running calls: one of each process, which the others read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from proofloop.errors import Retry, StoreError
from proofloop.schema import keys
from proofloop.schema.records import Record
from proofloop.store import Store
from proofloop.store.holder import this_process
from proofloop.store.renewed import Renewed, newest

log = structlog.get_logger()


@dataclass(frozen=True)
class CallLeaseTimes:
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


DEFAULT_TIMES = CallLeaseTimes()

Begun = Callable[[], Mapping[str, float]]
"""Gives the keys of the calls that run, and when each began."""

KEPT = 2
"""A process keeps this many of its leases in the store: another may be about to read the last but
one.
"""


class CallLease(Record):
    """The calls of one process, which others must not repeat before it ends, in seconds of Unix
    time.
    """

    holder: str
    until_s: float
    calls: tuple[str, ...]


class CallLeases:
    """The lease of this process, and those of the others. `losses` counts its lost connections (see
    `Bus.losses`).
    """

    def __init__(
        self, store: Store, losses: Callable[[], int], times: CallLeaseTimes = DEFAULT_TIMES
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
        self._others: dict[str, CallLease] | StoreError = {}
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

    def _of_others(self) -> dict[str, CallLease]:
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

    def _read(self) -> dict[str, CallLease]:
        calls: dict[str, CallLease] = {}
        for process, lease in newest(self._store, keys.LEASES, CallLease, but=self._own.process):
            if lease.until_s + self.times.forget_s < time.time():
                self._store.delete_prefix(keys.renewed_by(keys.LEASES, process))
            else:
                calls.update(dict.fromkeys(lease.calls, lease))
        return calls

    # -- what this process holds

    def watch(self, begun: Begun, ending: threading.Event) -> None:
        """Write and renew the lease until `ending`, then delete it."""
        while not ending.wait(self.times.watch_s):
            self._try(lambda: self._renew(begun))
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

    def _renew(self, begun: Begun) -> None:
        now_s, losses = time.monotonic(), self._losses()
        if losses > self._seen_losses:
            self._seen_losses, self._lost_s, self._due_s = losses, now_s, now_s
        if now_s < self._due_s:
            return
        begun_before_s = max(now_s - self.times.begin_s, self._lost_s)
        held = tuple(key for key, began_s in begun().items() if began_s <= begun_before_s)
        if held:
            self._write(held)
        elif self._held:
            self._own.delete()
        self._held, self._is_away, self._due_s = held, False, now_s + self.times.renew_s

    def _write(self, held: tuple[str, ...]) -> None:
        until_s = time.time() + self.times.last_s
        self._own.write(CallLease(holder=this_process(), until_s=until_s, calls=held))
