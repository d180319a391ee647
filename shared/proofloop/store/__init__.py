"""The object store, which holds all state of proofloop: a local folder, or a bucket on an S3
server.
"""

from __future__ import annotations

from pathlib import Path

from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, install_hint
from proofloop.store.base import R, Store, find_record, get_record, put_record
from proofloop.store.local import LocalStore

__all__ = ["LocalStore", "R", "Store", "find_record", "get_record", "open_store", "put_record"]


def open_store(settings: Settings, folder: Path | None = None) -> Store:
    """Open the store: `folder` if given, else S3 if PROOFLOOP_S3_ENDPOINT is set, else the folder
    of the settings.

    Raises ConfigError, StoreError.
    """
    if folder is not None or settings.s3_endpoint is None:
        return LocalStore(folder or settings.store)
    if settings.s3_access_key is None or settings.s3_secret_key is None:
        raise ConfigError(
            "PROOFLOOP_S3_ENDPOINT is set, but its keys are not",
            "set PROOFLOOP_S3_ACCESS_KEY and PROOFLOOP_S3_SECRET_KEY",
        )
    try:
        from proofloop.store.minio import MinioStore
    except ImportError as error:
        raise ConfigError("the S3 client is not installed", install_hint("[cluster]")) from error
    scheme, _, host = settings.s3_endpoint.rstrip("/").partition("://")
    return MinioStore(
        host,
        settings.s3_bucket,
        settings.s3_prefix,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=scheme == "https",
        region=settings.s3_region,
    )
