"""A lease: one process at a time works on a run or a curriculum, in any store.

In a local folder it is a file lock, which the kernel ends with the process. In other stores it is a
chain of numbered records. Each is written with `put_if_absent`, and the newest one names the
holder. The holder adds a record to renew its lease; after the lease's end any process may add one.
A record is deleted after newer ones, so a process that was suspended may write its number again:
every writer therefore lists the chain once more after its write.

Clocks: a lease ends by the wall clock, so the machines' clocks must agree within seconds.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from proofloop.errors import ConfigError, StoreError
from proofloop.schema import keys
from proofloop.schema.records import Record
from proofloop.store.base import Store, find_record, put_record
from proofloop.store.holder import clock_time, in_use, this_process
from proofloop.store.local import LocalStore

log = structlog.get_logger()


@dataclass(frozen=True)
class LeaseTimes:
    """All in seconds."""

    last_s: float = 60.0
    """How long a lease is valid after its renewal: so long others wait for a killed holder."""

    renew_s: float = 15.0
    """Between two renewals; several may fail before the lease ends."""

    away_s: float = 1.0
    """The retry after a failed renewal."""


DEFAULT_TIMES = LeaseTimes()

LONGEST_END_S = 5.0
"""The end of the block waits so long for the lease's last record; else the lease expires."""

KEPT = 2
"""Records that are kept: a reader may be about to read the last but one."""


class Lease:
    """The lease that this process holds. A file lock cannot be lost."""

    def check(self) -> None:
        """Call this before each step that only the holder may take.

        Raises StoreError while the lease is expired because the store is unavailable: a later
        check may succeed. Raises ConfigError for good once another process has taken the lease.
        """


@contextmanager
def held(store: Store, name: str, what: str, times: LeaseTimes = DEFAULT_TIMES) -> Iterator[Lease]:
    """Hold the lease on the run or curriculum `name` until the block ends. `what` names it in
    errors.

    Raises ConfigError if another process holds it, StoreError.
    """
    if isinstance(store, LocalStore):
        with store.only_here(name, what):
            yield Lease()
        return
    lease, ending = RenewedLease(store, name, what, times), threading.Event()
    lease.take()
    thread = threading.Thread(target=lease.keep, args=(ending,), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ending.set()
        thread.join(LONGEST_END_S)


class Holder(Record):
    """A process and its lease, in seconds of Unix time. `process` is unique, unlike a process
    id.
    """

    process: str = ""
    name: str = "no process, because its records were deleted"
    since_s: float = 0.0
    until_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}, since {clock_time(self.since_s)}" if self.process else self.name


NO_HOLDER = Holder()


class RenewedLease(Lease):
    """A lease as a chain of records. `keep` runs in a thread of its own."""

    def __init__(self, store: Store, name: str, what: str, times: LeaseTimes) -> None:
        self._store, self._name, self._what, self._times = store, name, what, times
        self._own = Holder(process=uuid.uuid4().hex, name=this_process(), since_s=time.time())
        self._until_s = 0.0
        self._taken_by: Holder | None = None
        self._is_away = False

    def check(self) -> None:
        if self._taken_by is not None:
            raise ConfigError(
                f"this process has lost its lease on {self._what} in {self._store}: it now belongs"
                f" to {self._taken_by}",
                "let that process work, or stop it and run this command again",
            )
        late_s = time.time() - self._until_s
        if late_s > 0:
            raise StoreError(
                f"the lease on {self._what} expired {late_s:.0f} s ago: the store {self._store} did"
                " not take its renewal"
            )

    def take(self) -> None:
        """Take the lease if it is free or expired. Raises ConfigError if another process holds
        it.
        """
        number, holder = self._newest()
        if holder.until_s <= time.time():
            holder = self._add(number + 1, self._times.last_s)
        if holder.process != self._own.process:
            raise in_use(self._what, self._store, str(holder), ends=self._end_of(holder))
        self._until_s = holder.until_s

    def keep(self, ending: threading.Event) -> None:
        """Renew the lease until `ending`, then end it."""
        pause_s = self._times.renew_s
        while not ending.wait(pause_s) and self._taken_by is None:
            pause_s = self._times.renew_s if self._try(self._times.last_s) else self._times.away_s
        self._try(0.0)

    def _end_of(self, holder: Holder) -> str:
        return (
            f"; if it was killed, its lease ends by itself at {clock_time(holder.until_s)}"
            f" ({max(0.0, holder.until_s - time.time()):.0f} s from now)"
        )

    def _try(self, last_s: float) -> bool:
        """Renew or end the lease; whether the store could be reached."""
        try:
            self._extend(last_s)
        except Exception as error:  # without this thread the lease would expire
            if not self._is_away:
                log.warning("lease_not_renewed", reason=f"{type(error).__name__}: {error}")
            self._is_away = True
        else:
            self._is_away = False
        return not self._is_away

    def _extend(self, last_s: float) -> None:
        number, holder = self._newest()
        if holder.process == self._own.process:
            holder = self._add(number + 1, last_s)
        if holder.process == self._own.process:
            self._until_s = holder.until_s
        elif self._taken_by is None:
            self._taken_by = holder
            log.error("lease_lost", what=self._what, holder=str(holder))

    def _add(self, number: int, last_s: float) -> Holder:
        """Add a record that is valid for `last_s` from now; returns the holder after that."""
        record = self._own.model_copy(update={"until_s": time.time() + last_s})
        put_record(self._store, keys.holder(self._name, number), record)
        for key in list(self._store.list(keys.holders(self._name)))[:-KEPT]:
            self._store.delete_prefix(f"{keys.folder_of(key)}/")
        return self._newest()[1]

    def _newest(self) -> tuple[int, Holder]:
        """The newest record's number, and the holder."""
        for key in reversed(list(self._store.list(keys.holders(self._name)))):
            if holder := find_record(self._store, key, Holder):
                return int(keys.name_of(keys.folder_of(key))), holder
        return 0, NO_HOLDER
