"""The store seam: named objects, written once.

`put_if_absent` is the only way to write: of several writers of one key exactly one wins, and all read the same
afterwards. What a caller may not assume: that a listing is a snapshot, or that an object without `durable` outlives a
power cut (it does outlive a killed process).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from pydantic import ValidationError

from proofloop.errors import CorruptObject, NotFound
from proofloop.records import Record

R = TypeVar("R", bound=Record)


class Store(Protocol):
    """Named objects. Keys are relative paths of plain names; every method raises StoreError when the store is away."""

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """Write the object whole, or leave what is there; true if it was written."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object's bytes piece by piece, for what is too large to hold whole. Raises NotFound."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix` (which ends with "/"), sorted, read lazily."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Remove the keys that begin with `prefix`; how many there were."""
        ...


def put_record(store: Store, key: str, record: R, *, durable: bool = False) -> R:
    """Write the record if the key is free; the record that lies there afterwards."""
    if store.put_if_absent(key, record.model_dump_json().encode(), durable=durable):
        return record
    return get_record(store, key, type(record))


def get_record(store: Store, key: str, kind: type[R]) -> R:
    """Read a record. Raises NotFound or CorruptObject."""
    try:
        return kind.model_validate_json(store.get(key))
    except ValidationError as error:
        first = error.errors()[0]
        raise CorruptObject(f"{key} is no {kind.__name__}: {first['loc']}: {first['msg']}") from error


def find_record(store: Store, key: str, kind: type[R]) -> R | None:
    """Read a record, or None if there is none. Raises CorruptObject."""
    try:
        return get_record(store, key, kind)
    except NotFound:
        return None
