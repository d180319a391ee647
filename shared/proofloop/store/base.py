"""The protocol of an object store: named objects, each written once.

`put_if_absent` is the only way to write. If several writers use one key, exactly one wins, and all
read its object afterwards. A caller may not assume that a listing is a snapshot, or that an object
written without `durable` survives a power cut (it does survive a killed process).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from proofloop.errors import CorruptObject, InvalidKey, NotFound
from proofloop.schema.records import Record
from proofloop.schema.validation import first_problem

R = TypeVar("R", bound=Record)


class Store(Protocol):
    """Named objects with relative paths as keys. Each method raises StoreError if the store is
    unavailable, and InvalidKey for a key that no object can have.
    """

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """Write the object unless the key exists; true if it was written. A reader never sees half
        an object.
        """
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object's bytes in chunks, for objects larger than memory. Raises NotFound."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[str]:
        """The sorted keys that begin with `prefix`, read lazily. `prefix` ends with "/". Files of
        other programs such as `.DS_Store` are no keys.
        """
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Delete all objects whose keys begin with `prefix`; returns their number. `prefix` ends
        with "/".
        """
        ...


def check_key(key: str) -> None:
    """Raise InvalidKey for a key that would leave the store, is hidden, or has a control
    character.
    """
    if is_hidden(key) or "//" in f"/{key}/" or not key.isprintable():
        raise InvalidKey(f"{key!r} is not a valid key")


def is_hidden(key: str) -> bool:
    """Whether a part of the key begins with a dot. Stores keep their own files so, and so do
    programs that look into a folder: `.DS_Store`, `.nfs0001`.
    """
    return "/." in f"/{key}"


def put_new(store: Store, key: str, record: BaseModel, *, durable: bool = False) -> bool:
    """Write the record unless the key exists; true if it was written."""
    return store.put_if_absent(key, record.model_dump_json().encode(), durable=durable)


def put_record(store: Store, key: str, record: R, *, durable: bool = False) -> R:
    """Write the record unless the key exists. Returns the stored record: this one, or an earlier
    writer's.
    """
    if put_new(store, key, record, durable=durable):
        return record
    return get_record(store, key, type(record))


def get_record(store: Store, key: str, kind: type[R]) -> R:
    """Read a record. Raises NotFound or CorruptObject."""
    try:
        return kind.model_validate_json(store.get(key))
    except ValidationError as error:
        problem = first_problem(error)
        raise CorruptObject(f"{key} is not a valid {kind.__name__}: {problem}") from error


def records_below(store: Store, prefix: str, kind: type[R]) -> Iterator[R]:
    """The records below a prefix, one at a time. Raises CorruptObject."""
    return (get_record(store, key, kind) for key in store.list(prefix))


def last_record(store: Store, prefix: str, kind: type[R]) -> R | None:
    """The last record below a prefix, or None if there is none. Raises CorruptObject."""
    last = deque(store.list(prefix), maxlen=1)
    return get_record(store, last[0], kind) if last else None


def find_record(store: Store, key: str, kind: type[R]) -> R | None:
    """Read a record, or None if there is none. Raises CorruptObject."""
    try:
        return get_record(store, key, kind)
    except NotFound:
        return None
