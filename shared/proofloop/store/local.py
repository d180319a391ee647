"""The store as a local folder. An object appears whole by a hard link from a temporary file: that also decides who was first.

After a power cut an object written without `durable` may be there with no bytes in it; such a file counts as absent.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from proofloop.errors import ConfigError, NotFound, StoreError


class LocalStore:
    """Objects as files below `root`. Safe to share between threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._temporary = self.root / ".tmp"
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            probe = self._write_temporary(b"", durable=False)
            probe.unlink()
        except OSError as error:
            raise ConfigError(f"the store {root} cannot be written: {error.strerror}", "choose a folder that you may write to") from error

    def path(self, key: str) -> Path:
        """Where the object or folder of that key lies. Raises StoreError for a key that leaves the store."""
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"{key!r} is no key")
        return self.root / key

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        target = self.path(key)
        try:
            if target.exists() and target.stat().st_size > 0:
                return False
            return self._link_into_place(target, data, durable)
        except OSError as error:
            raise StoreError(f"{key} cannot be written: {error}") from error

    def get(self, key: str) -> bytes:
        try:
            data = self.path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(key) from error
        except OSError as error:
            raise StoreError(f"{key} cannot be read: {error}") from error
        if not data:
            raise NotFound(key)
        return data

    def exists(self, key: str) -> bool:
        path = self.path(key)
        return path.is_file() and path.stat().st_size > 0

    def list(self, prefix: str) -> Iterator[str]:
        return self._walk(self.path(prefix.rstrip("/")))

    def delete_prefix(self, prefix: str) -> int:
        keys = sum(1 for _ in self.list(prefix))
        shutil.rmtree(self.path(prefix.rstrip("/")), ignore_errors=True)
        return keys

    def _walk(self, folder: Path) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path))
            else:
                yield str(Path(entry.path).relative_to(self.root))

    def _link_into_place(self, target: Path, data: bytes, durable: bool) -> bool:
        temporary = self._write_temporary(data, durable)
        try:
            _make_parent(target)
            return _first_to_link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
            if durable:
                _sync_folder(target.parent)

    def _write_temporary(self, data: bytes, durable: bool) -> Path:
        temporary = self._temporary / f"{os.getpid()}-{threading.get_ident()}-{uuid.uuid4().hex[:8]}"
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        return temporary


def _make_parent(target: Path) -> None:
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)


def _first_to_link(temporary: Path, target: Path) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        if target.stat().st_size > 0:
            return False
        os.replace(temporary, target)  # what a power cut left behind: no bytes, so nobody ever read it
    return True


def _sync_folder(folder: Path) -> None:
    """A rename or link is safe only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
