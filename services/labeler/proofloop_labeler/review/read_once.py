"""Records below a prefix, each read once: labels, grades and steps never change."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from proofloop.schema import keys
from proofloop.store import R, Store, get_record

T = TypeVar("T")

READERS = 8
"""Parallel reads: an object store takes milliseconds a record, and a run may have a hundred
thousand.
"""


class ReadOnce(Generic[R, T]):
    """The records below a prefix by name, each read once and shortened by `keep`. Thread-safe."""

    def __init__(self, store: Store, prefix: str, kind: type[R], keep: Callable[[R], T]) -> None:
        self._store = store
        self._prefix = prefix
        self._kind = kind
        self._keep = keep
        self._kept: dict[str, T] = {}
        self._listed_s = -math.inf
        self._lock = threading.Lock()

    def all(self, *, age_s: float = 0.0) -> dict[str, T]:
        """All records in the order of their names, from a list that is at most `age_s` old."""
        with self._lock:
            if time.monotonic() - self._listed_s <= age_s:
                return self._kept
            names = [keys.name_below(self._prefix, key) for key in self._store.list(self._prefix)]
            new = [name for name in names if name not in self._kept]
            with ThreadPoolExecutor(READERS) as pool:
                known = self._kept | dict(zip(new, pool.map(self._read, new), strict=True))
            self._kept = {name: known[name] for name in names}
            self._listed_s = time.monotonic()
            return self._kept

    def _read(self, name: str) -> T:
        return self._keep(get_record(self._store, f"{self._prefix}{name}.json", self._kind))
