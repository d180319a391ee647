"""The object store: the only state there is."""

from proofloop.store.base import Store, find_record, get_record, put_record
from proofloop.store.local import LocalStore

__all__ = ["LocalStore", "Store", "find_record", "get_record", "put_record"]
