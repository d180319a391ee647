"""Fills the index of a run from the store: from its labels and proofs, never from all critiques.

Each label is read once. A grade that came since is noticed by its key. The run may be running.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from proofloop.runs.index.database import DamagedIndex, Index
from proofloop.runs.labels import find_label
from proofloop.runs.search.records import SearchResult
from proofloop.runs.spec import find_creation
from proofloop.schema import keys
from proofloop.schema.records import Problem, Provenance, Record, Verdict, digest
from proofloop.store import Store, find_record, get_record

T = TypeVar("T")
Row = tuple[object, ...]

READERS = 8
"""Parallel reads: an object store takes milliseconds a record."""

BATCH = 500
"""Rows that are written together; others see them while the rest is read."""

Report = Callable[[int, int], None]
"""Called with the labels that are in the index, and with those in the store."""


class _Proof(Record):
    """A proof without its texts."""

    verdict: Verdict
    provenance: Provenance
    parents: tuple[str, ...] = ()


def fill(index: Index, store: Store, run: str, report: Report = lambda done, total: None) -> None:
    """Bring the index of a run up to date. Safe to repeat, and in several processes at once. A
    damaged index is filled anew.

    Raises StoreError, and ConfigError if the index cannot be written.
    """
    try:
        _fill(index, store, run, report)
    except DamagedIndex:
        _fill(index, store, run, report)


def _fill(index: Index, store: Store, run: str, report: Report) -> None:
    labeled = {keys.name_of(key) for key in store.list(keys.labels(run))}
    _forget_deleted(index, store, run, labeled)
    _fill_problems(index, store, run)
    _fill_proofs(index, store, run, labeled, report)
    _fill_grades(index, store, run)
    _fill_searches(index, store, run)


def _forget_deleted(index: Index, store: Store, run: str, labeled: set[str]) -> None:
    """Forget a deleted run whose name another one has. The other may have the same proof ids."""
    creation = find_creation(store, run)
    noted = _column(index, "SELECT id FROM creations WHERE run = ?", run)
    if _known_proofs(index, run) - labeled or (noted and noted != {creation}):
        index.forget(run)
    _insert(index, "creations", [(run, creation)])


def _fill_problems(index: Index, store: Store, run: str) -> None:
    known = _column(index, "SELECT id FROM problems WHERE run = ?", run)
    new = [key for key in store.list(keys.problems(run)) if keys.name_of(key) not in known]
    problems = _read(lambda key: _problem_row(run, get_record(store, key, Problem)), new)
    _insert(index, "problems", problems)


def _problem_row(run: str, problem: Problem) -> Row:
    question = problem.question
    return run, problem.id, sort_key(problem.id), question, digest(question), problem.source or ""


def sort_key(name: str) -> str:
    """Sorts p2 before p10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), name)


def _fill_proofs(index: Index, store: Store, run: str, labeled: set[str], report: Report) -> None:
    known = _known_proofs(index, run)
    done = len(known)
    report(done, len(labeled))
    rows = _read(lambda name: _proof_row(store, run, name), sorted(labeled - known))
    for batch in _batches(rows):
        _insert(index, "proofs", batch)
        done += len(batch)
        report(done, len(labeled))


def _known_proofs(index: Index, run: str) -> set[str]:
    return _column(index, "SELECT id FROM proofs WHERE run = ?", run)


def _proof_row(store: Store, run: str, name: str) -> Row | None:
    """None for a label that was deleted since the listing."""
    label = find_label(store, run, name)
    proof = find_record(store, keys.proof(run, name), _Proof)
    if label is None or proof is None:
        return None
    made = proof.provenance
    return (
        run,
        name,
        label.problem_id,
        label.outcome,
        label.kind,
        label.score,
        label.solved,
        label.by,
        proof.verdict.score,
        proof.verdict.outcome,
        made.model_version,
        json.dumps(proof.parents),
        made.prompt_tokens + made.completion_tokens,
    )


def _fill_grades(index: Index, store: Store, run: str) -> None:
    """Read the labels anew that people may have changed."""
    prefix = keys.all_grades(run)
    known = _column(index, "SELECT name FROM grades WHERE run = ?", run)
    new = [
        name for key in store.list(prefix) if (name := keys.name_below(prefix, key)) not in known
    ]
    graded = {keys.first_below("", name) for name in new}
    _insert(index, "proofs", _read(lambda name: _proof_row(store, run, name), graded))
    _insert(index, "grades", [(run, name) for name in new])


def _fill_searches(index: Index, store: Store, run: str) -> None:
    known = _column(index, "SELECT problem FROM searches WHERE run = ?", run)
    new = [key for key in store.list(keys.searches(run)) if keys.name_of(key) not in known]
    results = _read(lambda key: get_record(store, key, SearchResult), new)
    _insert(
        index,
        "searches",
        [
            (run, each.problem_id, each.best, each.score, len(each.best_by_round) - 1)
            for each in results
        ],
    )


def _read(read: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
    """Read in parallel and in order, with a bounded number of results in memory."""
    with ThreadPoolExecutor(READERS) as pool:
        for batch in _batches(names):
            yield from pool.map(read, batch)


def _batches(items: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _column(index: Index, query: str, run: str) -> set[str]:
    with index.connection() as connection:
        return {row[0] for row in connection.execute(query, (run,))}


def _insert(index: Index, table: str, rows: Iterable[Row | None]) -> None:
    found = [row for row in rows if row is not None]
    if found:
        with index.connection() as connection:
            insert(connection, table, found)


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Write rows; a row with a known key replaces the earlier one."""
    places = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({places})", rows)
