"""The store as a local folder. An object appears whole by a hard link from a temporary file: that also decides who was first.

After a power cut an object written without `durable` may be there with no bytes in it; such a file counts as absent.
Paths are plain strings here: a walk makes ten store calls an event, and `pathlib` would take most of their time.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from proofloop.errors import ConfigError, NotFound, StoreError


class LocalStore:
    """Objects as files below `root`. Safe to share between threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._root = str(self.root)
        self._temporary = f"{self._root}/.tmp/{os.getpid()}-{os.urandom(4).hex()}"
        self._ticket = itertools.count()
        try:
            os.makedirs(f"{self._root}/.tmp", exist_ok=True)
            os.unlink(self._write_temporary(b"", durable=False))
        except OSError as error:
            raise ConfigError(
                f"the store {root} cannot be written: {error.strerror}", "choose a folder that you may write to"
            ) from error

    def path(self, key: str) -> Path:
        """Where the object or folder of that key lies. Raises StoreError for a key that leaves the store."""
        return Path(self._path(key))

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        target = self._path(key)
        try:
            return _size(target) == 0 and self._link_into_place(target, data, durable)
        except OSError as error:
            raise StoreError(f"{key} cannot be written: {error}") from error

    def get(self, key: str) -> bytes:
        try:
            with open(self._path(key), "rb") as file:
                data = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(key) from error
        except OSError as error:
            raise StoreError(f"{key} cannot be read: {error}") from error
        if not data:
            raise NotFound(key)
        return data

    def exists(self, key: str) -> bool:
        return _size(self._path(key)) > 0

    def list(self, prefix: str) -> Iterator[str]:
        return self._walk(self._path(prefix.rstrip("/")))

    def delete_prefix(self, prefix: str) -> int:
        folder = self._path(prefix.rstrip("/"))
        keys = sum(1 for _ in self._walk(folder))
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreError(f"{prefix} cannot be deleted: {error}") from error
        return keys

    def _path(self, key: str) -> str:
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"{key!r} is no key")
        return f"{self._root}/{key}"

    def _walk(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as found:
                entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, is_folder in entries:
            if is_folder:
                yield from self._walk(f"{folder}/{name}")
            else:
                yield f"{folder}/{name}"[len(self._root) + 1 :]

    def _link_into_place(self, target: str, data: bytes, durable: bool) -> bool:
        temporary = self._write_temporary(data, durable)
        try:
            return _first_to_link(temporary, target)
        finally:
            os.unlink(temporary)
            if durable:
                _sync_folder(os.path.dirname(target))

    def _write_temporary(self, data: bytes, durable: bool) -> str:
        temporary = f"{self._temporary}-{next(self._ticket)}"
        with open(temporary, "wb", buffering=0) as file:
            file.write(data)
            if durable:
                os.fsync(file.fileno())
        return temporary


def _size(path: str) -> int:
    """The file's size, 0 if there is no file."""
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _first_to_link(temporary: str, target: str) -> bool:
    """Whether this writer was the first; makes the folder when it is missing."""
    while True:
        try:
            os.link(temporary, target)
            return True
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except FileExistsError:
            if _size(target) > 0:
                return False
            os.unlink(target)  # what a power cut left behind: no bytes, so nobody ever read it


def _sync_folder(folder: str) -> None:
    """A link is safe only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
