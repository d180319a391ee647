"""The store as a local folder.

A writer fills a temporary file and hard-links it to the object's path. The link is atomic: the
object appears complete, and only the first writer's link succeeds.

After a power cut, an object written without `durable` may be an empty file; such a file counts as
absent. Paths are plain strings: a run makes ten store calls for each event, and `pathlib` would
take most of their time.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proofloop.errors import ConfigError, InvalidKey, NotFound, StoreError
from proofloop.store.base import check_key, is_hidden
from proofloop.store.holder import clock_time, in_use, this_process

CHUNK_BYTES = 64 * 1024 * 1024

TEMPORARY = ".tmp"
"""The folder of temporary files and locks."""

ABANDONED_S = 60.0
"""A temporary file that is older and not locked was left by a killed writer: a live one links its
file at once.
"""


class LocalStore:
    """Objects as files below `root`. Safe to share between threads and processes."""

    def __init__(self, root: Path, *, for_reading: bool = False) -> None:
        """Raises ConfigError if the folder cannot be written. With `for_reading` a folder suffices;
        a write may then raise StoreError.
        """
        self.root = root.absolute()
        self._root = str(self.root)
        self._temporary = f"{self._root}/{TEMPORARY}/{os.urandom(4).hex()}"
        self._ticket = itertools.count()
        try:
            os.makedirs(f"{self._root}/{TEMPORARY}", exist_ok=True)
            _remove_abandoned(f"{self._root}/{TEMPORARY}")
            _check_links_work(self._write_temporary(b"", durable=False))
        except OSError as error:
            if for_reading and os.path.isdir(self._root):
                return
            raise ConfigError(
                f"cannot write to the store {root}: {error.strerror}",
                "choose a folder with write permission, by --store or PROOFLOOP_STORE",
            ) from error

    @contextmanager
    def only_here(self, name: str, what: str = "") -> Iterator[None]:
        """Hold the lock `name` until the block or this process ends. Raises ConfigError if another
        process holds it. `what` names it in the error.
        """
        # "a": the file names the holder until the next one has the lock
        with open(f"{self._root}/{TEMPORARY}/{name}.lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise in_use(what or repr(name), self._root, file.read()) from error
            file.truncate(0)
            file.write(f"{this_process()}, since {clock_time(time.time())}")
            file.flush()
            yield

    def __str__(self) -> str:
        return self._root

    def path(self, key: str) -> Path:
        """The path of an object or of a folder of objects. Raises InvalidKey."""
        return Path(self._path(key))

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        if not data:
            raise ValueError(f"{key}: an empty object counts as absent and cannot be written")
        target = self._path(key)
        try:
            return _size(target) == 0 and self._link_into_place(target, data, durable)
        except OSError as error:
            raise _store_error(f"cannot write {key}", error) from error

    def get(self, key: str) -> bytes:
        return b"".join(self._read(key, None))

    def chunks(self, key: str) -> Iterator[bytes]:
        return self._read(key, CHUNK_BYTES)

    def _read(self, key: str, size: int | None) -> Iterator[bytes]:
        """Read in chunks of `size` bytes, or as one chunk if `size` is None."""
        is_empty = True
        try:
            with open(self._path(key), "rb", buffering=0) as file:
                while data := file.read(size):
                    is_empty = False
                    yield data
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(key) from error
        except OSError as error:
            raise _store_error(f"cannot read {key}", error) from error
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
            raise _store_error(f"cannot delete {prefix}", error) from error
        return keys

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._root}/{key}"

    def _walk(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in found
                    if not is_hidden(entry.name)
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _store_error(f"cannot list {folder}", error) from error
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
        """Remove an empty file that a power cut left behind.

        The lock admits one writer at a time: without it, one could remove the object that another
        has just written.
        """
        with open(f"{self._root}/{TEMPORARY}/-repair.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(target) and _size(target) == 0:
                os.unlink(target)

    def _sync_folders(self, target: str) -> None:
        """Sync all folders from the object's up to the root: a link survives a power cut only if
        they all do.
        """
        folder = target
        while folder != self._root:
            folder = os.path.dirname(folder)
            _sync_folder(folder)

    def _write_temporary(self, data: bytes, durable: bool) -> str:
        # a forked child inherits the ticket, so the process id is in the name too
        temporary = f"{self._temporary}-{os.getpid()}-{next(self._ticket)}"
        try:
            with open(temporary, "wb", buffering=0) as file:
                # held until the file is written or the process ends: see _remove_abandoned
                fcntl.flock(file, fcntl.LOCK_EX)
                rest = memoryview(data)
                while rest:  # one write call takes at most two gigabytes
                    rest = rest[file.write(rest) :]
                if durable:
                    os.fsync(file.fileno())
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return temporary


def _store_error(problem: str, error: OSError) -> StoreError:
    kind = InvalidKey if error.errno == errno.ENAMETOOLONG else StoreError
    return kind(f"{problem}: {error}")


def _size(path: str) -> int:
    """The file's size in bytes, 0 if there is no file. Raises StoreError if the size cannot be
    read.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise _store_error(f"cannot read the size of {path}", error) from error
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _links(temporary: str, target: str) -> bool:
    """Link the file to its target, making the folder if needed; true if this writer was the
    first.
    """
    try:
        try:
            os.link(temporary, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(temporary, target)
    except FileExistsError:
        return False
    return True


def _remove_abandoned(folder: str) -> None:
    """Remove the temporary files of killed writers; locks stay."""
    for name in os.listdir(folder):
        if not name.endswith(".lock"):
            # OSError: locked by a writer, another user's, or already removed
            with suppress(OSError):
                _remove_if_abandoned(f"{folder}/{name}")


def _remove_if_abandoned(temporary: str) -> None:
    with open(temporary, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(file.fileno()).st_mtime > ABANDONED_S:
            os.unlink(temporary)


def _check_links_work(temporary: str) -> None:
    """Raises OSError if the file system has no hard links, like some network folders. Removes
    `temporary`.
    """
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
