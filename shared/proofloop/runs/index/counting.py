"""Counts what a problem's calls cost: each answer is read once, and the index keeps the sums.

The index does not do so by itself, because a run may have millions of critiques.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.config.run_file import EnginePrices
from proofloop.runs.costs import Spent, bill_of, spent
from proofloop.runs.index.database import Index
from proofloop.runs.index.filling import Row, insert
from proofloop.schema.records import ModelRole
from proofloop.store import Store

NO_PRICES = EnginePrices()


def num_uncounted(index: Index, run: str, problem: str = "") -> int:
    """The number of labeled proofs, of the problem or of all, whose calls were not counted."""
    where = "WHERE run = ? AND problem = COALESCE(NULLIF(?, ''), problem)"
    with index.connection() as connection:
        labeled, counted = (
            connection.execute(f"SELECT COUNT(*) FROM {table} {where} {more}", (run, problem))
            for table, more in (("proofs", ""), ("costs", "AND role = 'generator'"))
        )
        return int(labeled.fetchone()[0] - counted.fetchone()[0])


def _uncounted(index: Index, run: str, problem: str) -> list[tuple[str, str]]:
    """Those proofs, with their problems."""
    with index.connection() as connection:
        rows = connection.execute(
            "SELECT id, problem FROM proofs WHERE run = ?"
            " AND problem = COALESCE(NULLIF(?, ''), problem)"
            " AND id NOT IN (SELECT proof FROM costs WHERE run = ?)",
            (run, problem, run),
        ).fetchall()
    return [(proof, of) for proof, of in rows]


def count_costs(index: Index, store: Store, run: str, problem: str = "") -> Iterator[int]:
    """Count the calls of the problem's labeled proofs, or of all. Yields how many proofs are
    left.
    """
    found = _uncounted(index, run, problem)
    for left, (proof, of) in zip(range(len(found), 0, -1), found, strict=True):
        yield left
        rows = list(_rows(store, run, proof, of))
        with index.connection() as connection:
            insert(connection, "costs", rows)


def _rows(store: Store, run: str, proof: str, problem: str) -> Iterator[Row]:
    """A row for the generator always: it marks the proof as counted."""
    by_role: dict[ModelRole, Spent] = {"generator": Spent()}
    bill = bill_of(store, run, proof)
    for role, made in bill.calls if bill else ():
        by_role[role] = by_role.get(role, Spent()) + spent(made, NO_PRICES)
    for role, of in by_role.items():
        tokens = of.prompt_tokens, of.completion_tokens
        yield run, proof, role, problem, of.calls, *tokens, of.engine_seconds
