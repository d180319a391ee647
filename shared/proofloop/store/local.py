"""The store as a local folder.

An object appears whole by a hard link from a temporary file: that also decides who was first.

After a power cut an object written without `durable` may be there with no bytes in it; such a file counts as absent.
Paths are plain strings here: a walk makes ten store calls an event, and `pathlib` would take most of their time.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proofloop.errors import ConfigError, NotFound, StoreError

_NO_NAMES = frozenset({"", ".", ".."})

CHUNK_BYTES = 64 * 1024 * 1024

TEMPORARY = ".tmp"
"""The folder of what is being written; no key begins with it."""

LEFT_S = 60.0
"""A temporary file that is older and that no writer holds was left behind: a writer links what it wrote at once."""


class LocalStore:
    """Objects as files below `root`. Safe to share between threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._root = str(self.root)
        self._temporary = f"{self._root}/{TEMPORARY}/{os.urandom(4).hex()}"
        self._ticket = itertools.count()
        try:
            os.makedirs(f"{self._root}/{TEMPORARY}", exist_ok=True)
            _sweep(f"{self._root}/{TEMPORARY}")
            _probe(self._write_temporary(b"", durable=False))
        except OSError as error:
            raise ConfigError(
                f"the store {root} cannot be written: {error.strerror}", "choose a folder that you may write to"
            ) from error

    @contextmanager
    def only_here(self, name: str) -> Iterator[None]:
        """Hold a lock of that name until the block or this process ends. Raises ConfigError if another holds it."""
        with open(f"{self._root}/{TEMPORARY}/{name}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"another process is working on {name!r} in {self._root}", "wait for it, or stop it"
                ) from error
            yield

    def __str__(self) -> str:
        return self._root

    def path(self, key: str) -> Path:
        """Where the object or folder of that key lies. Raises StoreError for a key that leaves the store."""
        return Path(self._path(key))

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        if not data:
            raise ValueError(f"{key}: an object without bytes counts as absent and cannot be written")
        target = self._path(key)
        try:
            return _size(target) == 0 and self._link_into_place(target, data, durable)
        except OSError as error:
            raise StoreError(f"{key} cannot be written: {error}") from error

    def get(self, key: str) -> bytes:
        return b"".join(self._read(key, None))

    def chunks(self, key: str) -> Iterator[bytes]:
        return self._read(key, CHUNK_BYTES)

    def _read(self, key: str, size: int | None) -> Iterator[bytes]:
        """In pieces of that size, or whole."""
        is_empty = True
        try:
            with open(self._path(key), "rb") as file:
                while data := file.read(size):
                    is_empty = False
                    yield data
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(key) from error
        except OSError as error:
            raise StoreError(f"{key} cannot be read: {error}") from error
        if is_empty:
            raise NotFound(key)

    def exists(self, key: str) -> bool:
        return _size(self._path(key)) > 0

    def list(self, prefix: str) -> Iterator[str]:
        return self._walk(self._path(prefix.removesuffix("/")))

    def delete_prefix(self, prefix: str) -> int:
        folder = self._path(prefix.removesuffix("/"))
        keys = sum(1 for _ in self._walk(folder))
        try:
            shutil.rmtree(folder)
        except (FileNotFoundError, NotADirectoryError):
            return keys
        except OSError as error:
            raise StoreError(f"{prefix} cannot be deleted: {error}") from error
        return keys

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if parts[0] == TEMPORARY or not _NO_NAMES.isdisjoint(parts) or "\0" in key:
            raise StoreError(f"{key!r} is no key")
        return f"{self._root}/{key}"

    def _walk(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in found
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StoreError(f"{folder} cannot be listed: {error}") from error
        for name in entries:
            path = f"{folder}/{name}"
            if name.endswith("/"):
                yield from self._walk(path[:-1])
            elif _size(path) > 0:
                yield path[len(self._root) + 1 :]

    def _link_into_place(self, target: str, data: bytes, durable: bool) -> bool:
        temporary = self._write_temporary(data, durable)
        try:
            while not _links(temporary, target):
                if _size(target) > 0:
                    return False
                self._remove_if_empty(target)
            return True
        finally:
            os.unlink(temporary)
            if durable:
                self._sync_folders(target)

    def _remove_if_empty(self, target: str) -> None:
        """Remove what a power cut left behind: no bytes, so nobody ever read it.

        One at a time, so that nobody removes the next writer's.
        """
        with open(f"{self._root}/{TEMPORARY}/-repair.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(target) and _size(target) == 0:
                os.unlink(target)

    def _sync_folders(self, target: str) -> None:
        """A link is safe only when its folder is, and that folder in its own."""
        folder = target
        while folder != self._root:
            folder = os.path.dirname(folder)
            _sync_folder(folder)

    def _write_temporary(self, data: bytes, durable: bool) -> str:
        temporary = (
            f"{self._temporary}-{os.getpid()}-{next(self._ticket)}"  # a forked child inherits the ticket, not the id
        )
        try:
            with open(temporary, "wb", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # until it is written, or its process ends: see _sweep
                rest = memoryview(data)
                while rest:  # one write takes at most two gigabytes
                    rest = rest[file.write(rest) :]
                if durable:
                    os.fsync(file.fileno())
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return temporary


def _size(path: str) -> int:
    """The file's size, 0 if there is no file. Raises StoreError where nobody can say."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at: {error}") from error
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _links(temporary: str, target: str) -> bool:
    """Whether this writer was the first; makes the folder when it is missing."""
    try:
        try:
            os.link(temporary, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(temporary, target)
    except FileExistsError:
        return False
    return True


def _sweep(folder: str) -> None:
    """Remove what writers that were killed have left behind; locks stay."""
    for name in os.listdir(folder):
        if not name.endswith(".lock"):
            with suppress(OSError):  # a writer holds it, another user's, or swept by another process
                _remove_if_left(f"{folder}/{name}")


def _remove_if_left(temporary: str) -> None:
    with open(temporary, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(file.fileno()).st_mtime > LEFT_S:
            os.unlink(temporary)


def _probe(temporary: str) -> None:
    """Raises OSError where files cannot be linked, as on some network folders."""
    try:
        os.link(temporary, f"{temporary}-link")
        os.unlink(f"{temporary}-link")
    finally:
        os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
