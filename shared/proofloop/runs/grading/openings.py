"""The parts of a proof that people opened beside the proof: a grade is blind if there were none."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from proofloop.schema import keys
from proofloop.schema.ids import critique_name
from proofloop.schema.records import Opening
from proofloop.store import Store, put_record

EVERYTHING = "everything"
"""The critiques of a proof, their judgements, the label and other people's grades."""

CRITIQUE = "critique"
"""One critique of a proof, to grade it."""

WRITERS = 8
"""Parallel records: an object store takes milliseconds for each."""


def what_others_think(critique: int | None) -> str:
    """The name of an opening: everything about a proof, or the judgements of a critique."""
    return EVERYTHING if critique is None else str(critique_name(critique))


def record_opening(store: Store, run_id: str, proof_id: str, what: str, *, by: str) -> None:
    """Record that the person has seen this of the proof."""
    key = keys.opening(run_id, by, proof_id, what)
    if not store.exists(key):
        put_record(store, key, Opening(by=by, at_s=time.time()))


def record_openings(
    store: Store, run_id: str, proof_ids: Iterable[str], what: str, *, by: str
) -> None:
    """Record that the person has seen this of each of the proofs."""
    names = set(proof_ids)
    if len(names) > WRITERS:  # one listing is faster than a look for each
        prefix, end = keys.openings_of(run_id, by), f"/{what}"
        known = (keys.name_below(prefix, key) for key in store.list(prefix))
        names -= {name.removesuffix(end) for name in known if name.endswith(end)}
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda name: record_opening(store, run_id, name, what, by=by), names):
            pass


def openings(store: Store, run_id: str, proof_id: str, *, by: str) -> frozenset[str]:
    """The parts of the proof that the person opened."""
    prefix = keys.opening_folder(run_id, by, proof_id)
    return frozenset(keys.name_of(key) for key in store.list(prefix))


def is_blind(seen: frozenset[str], critique: int | None) -> bool:
    """Whether a person who saw this does not know what others think of the proof or critique."""
    if critique is None:
        return not seen
    return not seen & {EVERYTHING, what_others_think(critique)}
