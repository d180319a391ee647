"""The object store, which holds all state of proofloop: a local folder, or a bucket on an S3
server.
"""

from __future__ import annotations

from pathlib import Path

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, library
from proofloop.plugins import load_plugin, plugin_names
from proofloop.store.base import (
    R,
    Store,
    find_record,
    get_record,
    last_record,
    put_new,
    put_record,
    records_below,
)
from proofloop.store.local import LocalStore

ENTRY_POINT_GROUP = "proofloop.stores"
"""An entry point of this group is named by the scheme of its URLs: a callable `(url) -> Store`."""

__all__ = [
    "LocalStore",
    "R",
    "Store",
    "find_record",
    "get_record",
    "is_folder",
    "last_record",
    "open_store",
    "put_new",
    "put_record",
    "records_below",
]


def open_store(
    settings: Settings, folder: Path | None = None, *, for_reading: bool = False
) -> Store:
    """Open the store: `folder` if given, else PROOFLOOP_STORE_URL or PROOFLOOP_S3_ENDPOINT if one
    is set, else the folder of the settings. `for_reading`: the folder may be read-only.

    Raises ConfigError, StoreError.
    """
    if folder is None and settings.store_url is not None:
        return _open_plugin(settings.store_url.get_secret_value())
    if folder is not None or settings.s3_endpoint is None:
        return LocalStore(folder or settings.store, for_reading=for_reading)
    with library("the S3 client is not installed", "[cluster]"):
        from proofloop.store.minio import MinioStore
        from proofloop.store.s3_keys import s3_keys
    scheme, _, host = settings.s3_endpoint.rstrip("/").partition("://")
    return MinioStore(
        host,
        settings.s3_bucket,
        settings.s3_prefix,
        keys=s3_keys(settings, host),
        secure=scheme == "https",
        region=settings.s3_region,
    )


def is_folder(settings: Settings) -> bool:
    """Whether the settings name a local folder, and no store on a server."""
    return settings.s3_endpoint is None and settings.store_url is None


def _open_plugin(url: str) -> Store:
    scheme, separator, _ = url.partition("://")
    if not separator:  # the value may hold a password
        raise ConfigError("PROOFLOOP_STORE_URL has no scheme", "write it as SCHEME://...")
    open_url = load_plugin(ENTRY_POINT_GROUP, scheme)
    if open_url is None:
        known = ", ".join(plugin_names(ENTRY_POINT_GROUP)) or "none"
        raise ConfigError(
            f"PROOFLOOP_STORE_URL: no installed package has a store for {scheme}://",
            f"install the package that has it; schemes here: {known}",
        )
    store: Store = open_url(url)
    return store
