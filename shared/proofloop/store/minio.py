"""The store on any S3-compatible server, through MinIO's client.

`If-None-Match: *` makes the first writer win; a server that ignores it is refused at start. An
object larger than PART_BYTES is stored as parts, and its key holds an index of the parts with their
SHA-256. The index is a small object, so the first writer wins there too. S3's own multipart upload
guarantees that on few servers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.credentials.providers import Provider
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import check_bucket_name

from proofloop.errors import (
    TRUST_HINT,
    ConfigError,
    CorruptObject,
    InvalidKey,
    NotFound,
    StoreError,
)
from proofloop.store.base import check_key, is_hidden

T = TypeVar("T")

PART_BYTES = 64 * 1024 * 1024
"""The largest piece sent in one request, and sent again if it fails."""

PARTS = ".parts"
"""The folder of the parts."""

WRITER = "x-amz-meta-proofloop-writer"
"""The metadata header with the id of the write call that made the object."""

INDEX = "x-amz-meta-proofloop-index"
"""The metadata header of an object that is an index of parts."""

ATTEMPTS = 5
"""Attempts of one call."""

FIRST_PAUSE_S = 0.1
"""The pause after the first attempt; each later pause is twice as long, about three seconds in
all.
"""

CONNECT_S, READ_S = 5.0, 60.0

CONNECTIONS = 64
"""Connections kept open: as many as a worker has threads by default."""

PAGE = 1000
"""Names in one page of a listing: S3's own limit."""

UNTRUSTED = "the store's certificate is not trusted"
"""A ConfigError at start. Later a StoreError, until the server's certificate is replaced."""

_TRANSIENT = frozenset(
    {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout"}
    | {"RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "Throttling", "TooManyRequests"}
)
_TOO_MANY_REQUESTS = 429
_NOT_IMPLEMENTED = 501
"""The only 5xx status that is permanent; all others are retried."""

_REFUSES_CONDITIONS = frozenset({400, _NOT_IMPLEMENTED})
"""The statuses with which servers refuse an If-None-Match that they do not support."""

NEEDS_CONDITIONS = "use a server with conditional writes: Ceph RGW (tested: 16.2), MinIO, AWS S3"

BUCKET_RULE = (
    "use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends;"
    " an IP address is not allowed"
)

_ABSENT = frozenset({"NoSuchKey", "NoSuchObject"})

LONGEST_KEY_BYTES = 1024
"""S3's own limit."""


class _TryAgain(Exception):
    """The call failed in a way that a retry may overcome. The server may have completed it
    nevertheless.
    """


class MinioStore:
    """Objects below `prefix` in a bucket. Safe to share between threads and processes."""

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str = "",
        *,
        keys: Provider,
        secure: bool = True,
        region: str = "us-east-1",
        part_bytes: int = PART_BYTES,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        """`endpoint` is host:port.

        Raises ConfigError if the bucket does not exist or the server ignores If-None-Match,
        StoreError if the server is unavailable.
        """
        try:
            check_bucket_name(bucket)  # the SDK does so at each call
        except ValueError as error:
            raise ConfigError(
                f"PROOFLOOP_S3_BUCKET = {bucket!r} is not valid: {error}", BUCKET_RULE
            ) from error
        self._endpoint = endpoint
        self._bucket = bucket
        self._part_bytes = part_bytes
        self._first_pause_s = first_pause_s
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            # a thread waits for a free connection: opening another costs more than the wait
            block=True,
            # `_call` retries, and knows that a failed attempt may have succeeded on the server
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        )
        try:
            self._client = Minio(
                endpoint,
                credentials=keys,
                secure=secure,
                region=region,
                http_client=pool,
            )
        except ValueError as error:
            raise ConfigError(
                f"PROOFLOOP_S3_ENDPOINT {endpoint!r} is not valid: {error}",
                "write it as https://host:port",
            ) from error
        self._check_server()

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix} at {self._endpoint}"

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """`durable` has no effect: the server decides about durability."""
        if not data:
            raise ValueError(f"{key}: an empty object counts as absent and cannot be written")
        name = self._name(key)
        if len(data) <= self._part_bytes:
            return self._put(name, data)
        return not self.exists(key) and self._put_parts(key, name, data)

    def get(self, key: str) -> bytes:
        return b"".join(self.chunks(key))

    def chunks(self, key: str) -> Iterator[bytes]:
        data, is_index = self._read(self._name(key), key)
        if not is_index:
            yield data
            return
        for part in json.loads(data)["parts"]:
            yield self._read_part(key, part)

    def exists(self, key: str) -> bool:
        name = self._name(key)
        try:
            self._call(key, lambda: self._client.stat_object(self._bucket, name))
        except NotFound:
            return False
        return True

    def delete_prefix(self, prefix: str) -> int:
        folder = self._name(prefix.removesuffix("/")) + "/"
        count = self._remove(folder)
        self._remove(f"{self._prefix}{PARTS}/{folder.removeprefix(self._prefix)}")
        return count

    def _name(self, key: str) -> str:
        check_key(key)
        name = self._prefix + key
        if len(name.encode()) > LONGEST_KEY_BYTES:
            raise InvalidKey(f"{name[:60]!r}... has more than {LONGEST_KEY_BYTES} bytes")
        return name

    def _put(self, name: str, data: bytes, **headers: str) -> bool:
        """Write unless the object exists.

        If an earlier attempt failed with an unknown outcome, the existing object may be our own:
        its metadata shows this.
        """
        writer = uuid.uuid4().hex
        sent = {
            "If-None-Match": "*",
            "Content-Type": "application/octet-stream",
            WRITER: writer,
            **headers,
        }
        is_retry = False

        def put() -> bool:
            nonlocal is_retry
            may_be_ours = is_retry
            is_retry = True
            try:
                # the SDK has no public argument for If-None-Match
                self._client._put_object(self._bucket, name, data, dict(sent))
            except S3Error as error:
                if error.code != "PreconditionFailed":
                    raise
                return may_be_ours and self._writer_of(name) == writer
            return True

        return self._call(name, put)

    def _writer_of(self, name: str) -> str:
        metadata = self._client.stat_object(self._bucket, name).metadata
        return str(metadata.get(WRITER, "")) if metadata else ""

    def _put_parts(self, key: str, name: str, data: bytes) -> bool:
        folder = f"{PARTS}/{key}/{uuid.uuid4().hex}"
        parts: list[dict[str, str]] = []
        for start in range(0, len(data), self._part_bytes):
            part = data[start : start + self._part_bytes]
            parts.append(
                {"name": f"{folder}/{len(parts):06d}", "sha256": hashlib.sha256(part).hexdigest()}
            )
            self._put(self._prefix + parts[-1]["name"], part)
        if self._put(
            name, json.dumps({"bytes": len(data), "parts": parts}).encode(), **{INDEX: "1"}
        ):
            return True
        self._remove(f"{self._prefix}{folder}/")
        return False

    def _read_part(self, key: str, part: dict[str, str]) -> bytes:
        try:
            data, _ = self._read(self._prefix + part["name"], key)
        except NotFound as error:
            raise CorruptObject(f"{key}: part {part['name']} is missing") from error
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise CorruptObject(f"{key}: part {part['name']} is damaged")
        return data

    def _read(self, name: str, key: str) -> tuple[bytes, bool]:
        """The object's bytes, and whether they are an index of parts."""

        def read() -> tuple[bytes, bool]:
            response = self._client.get_object(self._bucket, name)
            try:
                return response.read(), INDEX in response.headers
            finally:
                response.close()
                response.release_conn()

        data, is_index = self._call(key, read)
        if not data:
            raise NotFound(key)
        return data, is_index

    def _names(self, folder: str) -> Iterator[str]:
        """The names below a folder. Each page of the listing is one call with its own retries."""
        last = ""
        while True:
            page = self._call(folder, partial(self._page, folder, last))
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1]

    def _page(self, folder: str, last: str) -> list[str]:
        found = self._client.list_objects(
            self._bucket, folder, recursive=True, start_after=last or None
        )
        return [str(item.object_name) for item in itertools.islice(found, PAGE)]

    def _remove(self, folder: str) -> int:
        names = list(self._names(folder))

        def remove() -> None:
            for error in self._client.remove_objects(
                self._bucket, [DeleteObject(name) for name in names]
            ):
                raise _TryAgain(f"{error.name}: {error.message}")

        self._call(folder, remove)
        return len(names)

    def _call(self, what: str, action: Callable[[], T]) -> T:
        """Run the action, with retries if the failure may be temporary. Raises NotFound,
        StoreError.
        """
        for attempt in range(ATTEMPTS):
            try:
                return _classified(what, action)
            except _TryAgain as error:
                if attempt == ATTEMPTS - 1:
                    raise StoreError(
                        f"{what}: the store at {self._endpoint} is unavailable: {error}"
                    ) from error
                time.sleep(self._first_pause_s * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    def list(self, prefix: str) -> Iterator[str]:
        names = self._names(self._name(prefix.removesuffix("/")) + "/")
        keys = (name.removeprefix(self._prefix) for name in names)
        return (key for key in keys if not is_hidden(key))

    def _check_server(self) -> None:
        """Check that the bucket exists, can be written, and keeps the object of the first of two
        writers.
        """
        probe = f"{self._prefix}{PARTS}/probe/{uuid.uuid4().hex}"
        try:
            is_first_written = self._put(probe, b"first")
            is_second_written = self._put(probe, b"second")
            self._remove(probe)
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, urllib3.exceptions.SSLError):
                raise ConfigError(f"{UNTRUSTED}: {cause}", TRUST_HINT) from error
            if not isinstance(cause, S3Error):
                raise
            if cause.response.status in _REFUSES_CONDITIONS and self._takes_unconditional_writes(
                probe
            ):
                problem = (
                    f"the store {self} does not support conditional writes: it refuses"
                    " If-None-Match on PUT"
                )
                raise ConfigError(f"{problem}: {_described(cause)}", NEEDS_CONDITIONS) from error
            hints = {
                "InvalidBucketName": f"correct PROOFLOOP_S3_BUCKET: {BUCKET_RULE}",
                "NoSuchBucket": "create the bucket, or correct PROOFLOOP_S3_BUCKET",
                "AccessDenied": "give the user or role rights to get, put, list and delete objects",
                "RequestTimeTooSkewed": "correct this machine's clock, or the server's",
                "QuotaExceeded": "raise the quota of this user or bucket",
            }
            hint = hints.get(
                cause.code or "",
                "correct PROOFLOOP_S3_ACCESS_KEY, PROOFLOOP_S3_SECRET_KEY or PROOFLOOP_S3_REGION",
            )
            raise ConfigError(
                f"the store {self} refuses a test write: {_described(cause)}", hint
            ) from error
        if not is_first_written or is_second_written:
            raise ConfigError(
                f"the store {self} ignores If-None-Match on PUT: two workers could overwrite each"
                " other's objects",
                NEEDS_CONDITIONS,
            )

    def _takes_unconditional_writes(self, name: str) -> bool:
        """Whether the server accepts a write without If-None-Match: then it refuses only the
        condition.
        """
        try:
            _classified(name, lambda: self._client._put_object(self._bucket, name, b"first", {}))
            self._remove(name)
        except (StoreError, _TryAgain):
            return False
        return True


def _classified(what: str, action: Callable[[], T]) -> T:
    """Run the action. Raises NotFound, StoreError, or _TryAgain for a failure that may be
    temporary.
    """
    try:
        return action()
    except S3Error as error:
        if error.code in _ABSENT:
            raise NotFound(what) from error
        if _is_temporary(error):
            raise _TryAgain(_described(error)) from error
        raise StoreError(f"{what}: the store refuses the request: {_described(error)}") from error
    except urllib3.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise _TryAgain(str(error)) from error
        raise StoreError(f"{UNTRUSTED}: {error}; {TRUST_HINT}") from error
    except (ServerError, InvalidResponseError, urllib3.exceptions.HTTPError, OSError) as error:
        raise _TryAgain(f"{type(error).__name__}: {error}") from error
    except (ValueError, ParseError) as error:  # from the SDK, for a body that is not S3's
        raise _TryAgain(f"the response is not S3's: {error}") from error


def _is_temporary(error: S3Error) -> bool:
    status = error.response.status
    return (
        error.code in _TRANSIENT
        or status == _TOO_MANY_REQUESTS
        or (status >= 500 and status != _NOT_IMPLEMENTED)
    )


def _described(error: S3Error) -> str:
    return f"{error.code} {error.message or ''}".rstrip()
