"""Keeps the index of the runs that people look at up to date, in background threads.

A page waits a moment for it and then shows what the index has so far.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial

import structlog

from proofloop.errors import ProofloopError
from proofloop.runs.index import Index
from proofloop.runs.index.counting import count_costs, num_uncounted
from proofloop.runs.index.filling import fill
from proofloop.store import Store

log = structlog.get_logger()

WAIT_S = 0.4
"""How long a page waits for the index."""

FRESH_S = 2.0
"""An older index is filled again when a page of the run is opened."""

SHARE = 0.1
"""At most this share of the time is spent on filling: to list the labels of a large run in an
object store takes seconds.
"""

COUNTED_AT_ONCE = 300
"""The most proofs whose calls are counted for a page: each may have hundreds of calls."""


@dataclass(frozen=True)
class Filled:
    """The progress of filling a run's index. `problem`: the reason why the last filling failed."""

    done: int = 0
    total: int = 0
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        return self.done >= self.total and not self.problem


UNREAD = Filled(total=1)


class Stopped(Exception):
    """The server stops."""


class FreshIndex:
    """Fills the index in the background. Safe to share between threads."""

    def __init__(
        self,
        index: Index,
        store: Store,
        stopping: threading.Event,
        *,
        wait_s: float = WAIT_S,
        fresh_s: float = FRESH_S,
    ) -> None:
        """`fresh_s` = 0 fills the index at each look."""
        self.index = index
        self._wait_s, self._fresh_s = wait_s, fresh_s
        self._store = store
        self._stopping = stopping
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="index")
        self._later = ThreadPoolExecutor(1, thread_name_prefix="index-later")
        self._work: dict[str, Future[None]] = {}
        self._filled: dict[str, Filled] = {}
        self._due_s: dict[str, float] = {}

    def look(self, run: str) -> Filled:
        """Bring the index of a run up to date, as far as a short wait allows."""
        return self._look([run], self._pool)[0]

    def look_at_all(self, runs: Sequence[str]) -> list[Filled]:
        """Bring the index of many runs up to date, one after the other. A run that somebody opens
        meanwhile goes first.
        """
        return self._look(runs, self._later)

    def _look(self, runs: Sequence[str], pool: ThreadPoolExecutor) -> list[Filled]:
        now = time.monotonic()
        due = [run for run in runs if now >= self._due_s.get(run, 0.0)]
        begun = [self._begin(pool, f"fill {run}", partial(self._fill, run)) for run in due]
        wait(begun, self._wait_s)
        return [self._filled.get(run, UNREAD) for run in runs]

    def count(self, run: str, problem: str = "") -> None:
        """Begin to count the cost of a problem's proofs, or of the run's. Does nothing if there are
        too many.
        """
        if 0 < num_uncounted(self.index, run, problem) <= COUNTED_AT_ONCE:
            action = partial(self._count, run, problem)
            self._begin(self._later, f"count {run}/{problem}", action)

    def close(self) -> None:
        for pool in (self._pool, self._later):
            pool.shutdown(cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, name: str, action: Callable[[], None]
    ) -> Future[None]:
        """Begin work of this name, unless it runs or waits. What waits may go to the first pool."""
        with self._lock:
            self._work = {key: work for key, work in self._work.items() if not work.done()}
            known = self._work.get(name)
            if known is None or (pool is self._pool and known.cancel()):
                known = self._work[name] = pool.submit(action)
            return known

    def _fill(self, run: str) -> None:
        begin_s = time.monotonic()
        try:
            fill(self.index, self._store, run, lambda done, total: self._report(run, done, total))
        except ProofloopError as error:  # the page shows it, and the next visitor tries again
            self._filled[run] = replace(self._filled.get(run, UNREAD), problem=str(error))
            log.warning("index_not_filled", run=run, reason=str(error))
        except Stopped:
            return
        now = time.monotonic()
        pause_s = max(self._fresh_s, (now - begin_s) / SHARE) if self._fresh_s else 0.0
        self._due_s[run] = now + pause_s

    def _report(self, run: str, done: int, total: int) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._filled[run] = Filled(done, total)

    def _count(self, run: str, problem: str) -> None:
        try:
            for _ in count_costs(self.index, self._store, run, problem):
                if self._stopping.is_set():
                    return
        except ProofloopError as error:
            log.warning("costs_not_counted", run=run, problem=problem, reason=str(error))
