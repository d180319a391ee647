"""Messages that wait for their calls: thousands sleep at once, and none polls.

The engine wakes a message when one of its calls has ended. One thread for all messages wakes those
that must stop waiting: the process stops, or their result is no longer needed. That thread runs
only while messages wait.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import structlog

from proofloop.errors import Retry, StoreError
from proofloop.store import Store

log = structlog.get_logger()

LOOK_S = 1.0
"""How often the thread looks for messages whose check is due."""

RARELY_S = 16.0
"""A message is checked after 1, 2, 4, 8 and 16 seconds, then this often: short calls need no
check, and each check is a request to the store.
"""


class Cancelled(Exception):
    """The reply is no longer needed."""


class Wait:
    """One message's wait for several calls, each known by its position."""

    def __init__(self, unneeded_once: str = "") -> None:
        self.unneeded_once = unneeded_once
        self.check_s = self._began_s = time.monotonic()
        self._news: SimpleQueue[int | Exception] = SimpleQueue()
        self.plan_check()

    def wake(self, news: int | Exception) -> None:
        """Wake the message: a call has ended, or waiting must stop because of this error."""
        self._news.put(news)

    def next(self) -> int:
        """Sleep until a call ends. Raises the error passed to `wake`."""
        news = self._news.get()
        if isinstance(news, Exception):
            raise news
        return news

    def plan_check(self) -> None:
        """Plan the next check: after as long as the message has waited so far."""
        now_s = time.monotonic()
        self.check_s = now_s + min(max(now_s - self._began_s, LOOK_S), RARELY_S)


class WaitingMessages:
    """The waiting messages of this process. Safe to share between threads."""

    def __init__(self, store: Store, cancelling: threading.Event) -> None:
        self._store, self._cancelling = store, cancelling
        self._waits: set[Wait] = set()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @contextmanager
    def wait(self, wait: Wait) -> Iterator[None]:
        """Wake the message in this block if it must stop waiting."""
        with self._lock:
            self._waits.add(wait)
            if self._cancelling.is_set():
                wait.wake(stopping())
            elif self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="waiting", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._waits.discard(wait)

    def end(self, key: str) -> None:
        """A record was stored under this key: wake the messages that it makes useless."""
        with self._lock:
            for wait in self._waits:
                if wait.unneeded_once == key:
                    wait.wake(Cancelled())

    def _watch(self) -> None:
        while not self._cancelling.wait(LOOK_S):
            with self._lock:
                if not self._waits:
                    self._thread = None
                    return
                waits = [*self._waits]
            self._check(waits)
        with self._lock:
            self._thread = None
            for wait in self._waits:
                wait.wake(stopping())

    def _check(self, waits: list[Wait]) -> None:
        """Wake messages whose result is no longer needed. Each key is looked up once for all."""
        now_s = time.monotonic()
        due: defaultdict[str, list[Wait]] = defaultdict(list)
        for wait in waits:
            if wait.unneeded_once and wait.check_s <= now_s:
                due[wait.unneeded_once].append(wait)
        for key, waiting in due.items():
            if self._cancelling.is_set():
                return
            is_unneeded = self._is_stored(key)
            for wait in waiting:
                wait.plan_check()
                if is_unneeded:
                    wait.wake(Cancelled())

    def _is_stored(self, key: str) -> bool:
        try:
            return self._store.exists(key)
        except StoreError as error:  # unknown: the reply is paid for, so wait for it
            log.warning("store_away", key=key, reason=str(error))
            return False
        except Exception:  # without this thread a stop would wake no message
            log.exception("store_check_failed", key=key)
            return False


def stopping() -> Retry:
    return Retry("the process is stopping", after_s=0.0)
