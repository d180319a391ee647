"""The records of a run's searches."""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.config.run_file import RunSpec
from proofloop.schema import keys
from proofloop.schema.events import ParentProof
from proofloop.schema.records import Record
from proofloop.store import Store, get_record, records_below


class SearchRound(Record):
    """Refinements of a problem: proof number `first` + i refines `parents[i]`."""

    first: int
    parents: tuple[ParentProof, ...]


class SearchResult(Record):
    """The result of a problem's search. `best`: the proof of the highest score, or the solved one.

    `best_by_round`: the best of the first proofs, then the best after each round. `score`: the mean
    score of the best proof's critiques.
    """

    problem_id: str
    proofs: int
    best: str | None
    score: float | None
    solved: bool
    best_by_round: tuple[str | None, ...]


def searches_of(store: Store, run_id: str) -> Iterator[SearchResult]:
    """The results of a run's ended searches, one at a time."""
    return records_below(store, keys.searches(run_id), SearchResult)


def refinements_posed(store: Store, spec: RunSpec) -> int:
    """The number of proofs that the run's searches requested."""
    first = spec.problems.proofs_per_problem
    ended: set[str] = set()
    posed = 0
    for search in searches_of(store, spec.name):
        ended.add(search.problem_id)
        posed += search.proofs - first
    prefix = keys.rounds(spec.name)
    for key in store.list(prefix):
        if keys.first_below(prefix, key) not in ended:
            posed += len(get_record(store, key, SearchRound).parents)
    return posed
