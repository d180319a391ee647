"""The proofs whose label a reader can tell from a table of counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

from proofloop.runs.index.database import Index


def told_by_counts(
    index: Index,
    run: str,
    shown: Iterable[str],
    *,
    by: Literal["problem", "question"],
    best: Iterable[str] = (),
    generator: str = "",
) -> set[str]:
    """The proofs that a table with these rows tells to be accepted, or rejected: besides the `best`
    ones, which it names, all decided proofs of their row are. `generator`: of this version only.
    """
    query = f"""
    SELECT id FROM (
        SELECT proofs.id, MIN(outcome) OVER row AS lowest, MAX(outcome) OVER row AS highest
        FROM proofs JOIN problems ON problems.run = proofs.run AND problems.id = proofs.problem
        WHERE proofs.run = ? AND outcome IN ('accepted', 'rejected')
            AND {by} IN (SELECT value FROM json_each(?))
            AND proofs.id NOT IN (SELECT value FROM json_each(?)) AND ? IN ('', generator)
        WINDOW row AS (PARTITION BY {by})
    ) WHERE lowest = highest
    """
    values = (run, json.dumps(list(shown)), json.dumps(list(best)), generator)
    with index.connection() as connection:
        return {name for (name,) in connection.execute(query, values)}
