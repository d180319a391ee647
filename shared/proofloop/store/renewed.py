"""A record that one process writes again and again, of which the others read the newest.

The store overwrites nothing, so each writing has a number, and a folder because the store deletes
by prefix.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator

from proofloop.schema import keys
from proofloop.schema.records import Record
from proofloop.store.base import R, Store, find_record, put_record


class Renewed:
    """This process's record below `prefix`. Not safe to share between threads.

    `kept`: how many of its writings stay; with 2 a process that is about to read the last but one
      still finds it.
    """

    def __init__(self, store: Store, prefix: str, name: str, *, kept: int) -> None:
        self.process = uuid.uuid4().hex[:12]
        self._store, self._prefix, self._name, self._kept = store, prefix, name, kept
        self._next = 0
        self._there: deque[int] = deque()

    def write(self, record: Record) -> None:
        """Raises StoreError; a later writing removes what this one left."""
        number, self._next = self._next, self._next + 1
        self._there.append(
            number
        )  # before it is written: a write that fails may have reached the store
        put_record(
            self._store, keys.renewed(self._prefix, self.process, number, self._name), record
        )
        while len(self._there) > self._kept:
            self._store.delete_prefix(
                keys.renewed_folder(self._prefix, self.process, self._there[0])
            )
            self._there.popleft()

    def delete(self) -> None:
        """Raises StoreError."""
        self._store.delete_prefix(keys.renewed_by(self._prefix, self.process))


def newest(store: Store, prefix: str, kind: type[R], *, but: str = "") -> Iterator[tuple[str, R]]:
    """What each process below `prefix` wrote last, by process, without the process `but`. Raises
    StoreError.
    """
    found = {keys.first_below(prefix, key): key for key in store.list(prefix)}
    for process, key in found.items():
        record = find_record(store, key, kind) if process != but else None
        if record is not None:  # else a newer one is there
            yield process, record
