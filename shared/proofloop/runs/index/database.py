"""The SQLite file of the index. Several processes may read and fill it at the same time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from proofloop.errors import ConfigError, HintedError
from proofloop.schema.records import digest
from proofloop.store import Store

VERSION = 2
"""Part of the file's name: a change of the tables begins a new file."""

BUSY_S = 30.0
"""How long a writer waits for another process that fills the index."""

BEST_FIRST = "solved DESC, score DESC, self_score DESC, id"
"""The order of a problem's proofs, best first. A search names its best proof itself."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS proofs (
        run TEXT NOT NULL, id TEXT NOT NULL, problem TEXT NOT NULL,
        outcome TEXT NOT NULL, kind TEXT NOT NULL, score REAL, solved INTEGER NOT NULL,
        labeled_by TEXT NOT NULL, self_score REAL, verdict TEXT NOT NULL,
        generator TEXT NOT NULL, parents TEXT NOT NULL, tokens INTEGER NOT NULL,
        PRIMARY KEY (run, id)
    ) WITHOUT ROWID""",
    f"""CREATE INDEX IF NOT EXISTS best_proofs
        ON proofs (run, problem, {BEST_FIRST}, outcome, tokens)""",
    """CREATE TABLE IF NOT EXISTS problems (
        run TEXT NOT NULL, id TEXT NOT NULL, sort_key TEXT NOT NULL,
        question TEXT NOT NULL, question_digest TEXT NOT NULL, source TEXT NOT NULL,
        PRIMARY KEY (run, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS searches (
        run TEXT NOT NULL, problem TEXT NOT NULL, best TEXT, score REAL, rounds INTEGER NOT NULL,
        PRIMARY KEY (run, problem)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS costs (
        run TEXT NOT NULL, proof TEXT NOT NULL, role TEXT NOT NULL, problem TEXT NOT NULL,
        calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL, engine_seconds REAL NOT NULL,
        PRIMARY KEY (run, proof, role)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS grades (
        run TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (run, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS creations (
        run TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (run)
    ) WITHOUT ROWID""",
)
NAMES = ("proofs", "problems", "searches", "costs", "grades", "creations")
"""The tables; each has a column `run`."""


class DamagedIndex(HintedError):
    """The index was damaged. Its file is removed, and the next connection begins a new one."""


class Index:
    """The index of one store. Safe to share between threads: each use opens a connection."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigError if the file cannot be written."""
        self.file = file
        try:
            self._make_tables()
        except DamagedIndex:
            self._make_tables()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection; the changes are committed at the end of the block. Raises ConfigError if
        the file cannot be written, DamagedIndex.
        """
        if not self.file.exists():
            self._make_tables()
        with self._connect() as connection:
            yield connection

    def _make_tables(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error
        with self._connect() as connection:
            with suppress(sqlite3.OperationalError):  # locked by a process that sets it
                connection.execute("PRAGMA journal_mode = WAL")
            for statement in TABLES:
                connection.execute(statement)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.file, timeout=BUSY_S)) as connection:
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA synchronous = OFF")  # a lost index is filled again
                with connection:
                    yield connection
        except sqlite3.OperationalError as error:
            raise self._cannot_write(error) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a wrong statement, not a damaged file
                raise
            self._remove()
            raise DamagedIndex(
                f"the index {self.file} was damaged ({error}), and was removed",
                "run the command again: the index is filled again from the store",
            ) from error

    def _cannot_write(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"cannot write the index {self.file}: {error}",
            "set PROOFLOOP_CACHE to a folder with write permission",
        )

    def _remove(self) -> None:
        try:
            for ending in ("", "-wal", "-shm"):
                self.file.with_name(f"{self.file.name}{ending}").unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def forget(self, run: str) -> None:
        """Delete a run from the index."""
        with self.connection() as connection:
            for table in NAMES:
                connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))


def open_index(store: Store, cache: Path) -> Index:
    """The index of this store below the cache folder."""
    return Index(cache / "index" / f"{digest(str(store))}-{VERSION}.sqlite")
