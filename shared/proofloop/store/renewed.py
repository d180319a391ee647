"""A record that one process renews, and whose newest version other processes read.

The store never overwrites an object, so each version has a number. Each version has a folder of its
own, because the store deletes by prefix.
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

    `kept`: the number of versions to keep. With 2, a reader that has just listed the previous
    version still finds it.
    """

    def __init__(self, store: Store, prefix: str, name: str, *, kept: int) -> None:
        self.process = uuid.uuid4().hex[:12]
        self._store = store
        self._prefix = prefix
        self._name = name
        self._kept = kept
        self._next = 0
        self._versions: deque[int] = deque()

    def write(self, record: Record) -> None:
        """Write a version and delete the oldest. Raises StoreError; the next write deletes what is
        left.
        """
        number = self._next
        self._next += 1
        # before the write, because a write that fails may have reached the store
        self._versions.append(number)
        put_record(
            self._store, keys.renewed(self._prefix, self.process, number, self._name), record
        )
        while len(self._versions) > self._kept:
            self._store.delete_prefix(
                keys.renewed_folder(self._prefix, self.process, self._versions[0])
            )
            self._versions.popleft()

    def delete(self) -> None:
        """Delete all versions. Raises StoreError."""
        self._store.delete_prefix(keys.renewed_by(self._prefix, self.process))


def newest(store: Store, prefix: str, kind: type[R], *, but: str = "") -> Iterator[tuple[str, R]]:
    """The newest version of each process below `prefix` except the process `but`. Raises
    StoreError.
    """
    found = {keys.first_below(prefix, key): key for key in store.list(prefix)}
    for process, key in found.items():
        record = find_record(store, key, kind) if process != but else None
        if record is not None:  # deleted since the listing: there is a newer version
            yield process, record
