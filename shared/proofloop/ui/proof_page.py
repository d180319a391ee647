"""The page of a proof: its lines with the critiques that quote them, all critiques, its label and
its calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proofloop.config.run_file import Prices
from proofloop.runs.answers import critiques_of, find_judgement
from proofloop.runs.index.filling import sort_key
from proofloop.runs.index.tables import ProofRow, proofs_of
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.ids import SELF_CRITIQUE, attempt_name, critique_name
from proofloop.schema.records import Critique, Judgement, Label, Problem, Proof
from proofloop.store import Store, find_record
from proofloop.ui.answers import cost_of
from proofloop.ui.quotations import Place, Searched, blocks_of
from proofloop.ui.site import Site, named

WHOLE = 5
"""Critiques whose text is on the page at once; the others are loaded when they are opened."""

NOTES = 12
"""The most notes beside a block."""


@dataclass(frozen=True)
class ReadCritique:
    """A critique with its judgement and the places that it points to."""

    critique: Critique
    judgement: Judgement | None
    carries_label: bool
    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        return str(critique_name(self.critique.index))


@dataclass(frozen=True)
class Note:
    """A critique's text about a block."""

    read: ReadCritique
    words: str


@dataclass(frozen=True)
class Block:
    """A paragraph of the proof with the notes beside it."""

    number: int
    text: str
    notes: tuple[Note, ...]
    left_out: int


def proof(site: Site, request: Request) -> Response:
    spec, name = site.run(request), named(request, "proof")
    found = find_record(site.store, keys.proof(spec.name, name), Proof)
    if found is None:
        raise HTTPException(404, f"Run {spec.name} has no proof {name} yet.")
    site.record_reading(request, spec.name, [name])
    problem = find_record(site.store, keys.problem(spec.name, found.problem_id), Problem)
    label = find_label(site.store, spec.name, name)
    blocks = blocks_of(found.solution)
    critiques = read_critiques(site.store, found, label, Searched(blocks))
    site.index.look(spec.name)
    siblings = proofs_of(site.index.index, spec.name, found.problem_id)
    before, after = _neighbors(siblings, name)
    return site.page(
        "proof",
        spec=spec,
        proof=found,
        problem=problem,
        label=label,
        blocks=_with_notes(blocks, critiques),
        critiques=critiques,
        whole=WHOLE,
        self_judgement=find_judgement(site.store, spec.name, name, SELF_CRITIQUE),
        attempts=_attempts(site.store, found),
        children=[each.id for each in siblings if name in each.parents],
        cost=cost_of(found.provenance, spec.prices.of("generator")),
        is_priced=spec.prices != Prices(),
        before=before,
        after=after,
    )


def read_critiques(
    store: Store, proof: Proof, label: Label | None, searched: Searched
) -> list[ReadCritique]:
    """All critiques of a proof, those that decide most first."""
    carrying = label.critiques if label else ()
    found = [
        ReadCritique(
            critique=critique,
            judgement=find_judgement(store, proof.run_id, proof.id, critique.index),
            carries_label=critique.index in carrying,
            places=tuple(searched.places(critique.analysis)),
        )
        for critique in critiques_of(store, proof.run_id, proof.id)
    ]
    return sorted(found, key=_urgency)


def _urgency(read: ReadCritique) -> tuple[bool, bool, float, int]:
    """The critiques that carry the label, then confirmed ones, then by rising score."""
    score = read.critique.verdict.score
    is_confirmed = bool(read.judgement and read.judgement.confirmed)
    rank = 2.0 if score is None else score
    return not read.carries_label, not is_confirmed, rank, read.critique.index


def _with_notes(blocks: Sequence[str], critiques: Sequence[ReadCritique]) -> Iterator[Block]:
    for number, text in enumerate(blocks):
        notes = [
            Note(read, place.words)
            for read in critiques
            for place in read.places
            if place.block == number
        ]
        yield Block(number, text, tuple(notes[:NOTES]), max(0, len(notes) - NOTES))


def _attempts(store: Store, proof: Proof) -> list[str]:
    listed = store.list(keys.attempts(proof.run_id, proof.id))
    return [str(attempt_name(number)) for number, _ in enumerate(listed)]


def _neighbors(siblings: Sequence[ProofRow], name: str) -> tuple[str | None, str | None]:
    """The labeled proofs of the problem before and after this one, by number."""
    names = sorted((each.id for each in siblings), key=sort_key)
    before = [each for each in names if sort_key(each) < sort_key(name)]
    after = [each for each in names if sort_key(each) > sort_key(name)]
    return (before[-1] if before else None), (after[0] if after else None)
