"""The page of a problem: its proofs, and the search's tree of refinements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proofloop.config.run_file import Prices, RunSpec
from proofloop.runs.index.filling import sort_key
from proofloop.runs.index.tables import ProofRow, problem_row, proofs_of
from proofloop.runs.search.records import SearchRound
from proofloop.schema import keys
from proofloop.schema.ids import proof_id
from proofloop.schema.records import Problem
from proofloop.store import Store, find_record, last_record
from proofloop.ui.site import Site, named, page_number, with_query

ROWS = 200
"""Proofs on a page of the table."""

NODES = 600
"""Proofs in the tree, best branches first."""

WAITING = 50
"""The most proofs without a label that are listed."""


@dataclass(frozen=True)
class Node:
    """A proof in the tree of refinements. `leads_to_best`: it or a descendant is the best."""

    proof: ProofRow
    children: tuple[Node, ...]
    leads_to_best: bool


@dataclass(frozen=True)
class WaitingProof:
    """A posed proof without a label. `is_written`: the generator has answered."""

    id: str
    is_written: bool


def problem(site: Site, request: Request) -> Response:
    spec, name = site.run(request), named(request, "problem")
    record = find_record(site.store, keys.problem(spec.name, name), Problem)
    if record is None:
        raise HTTPException(404, f"Run {spec.name} has no problem {name} yet.")
    filled = site.index.look(spec.name)
    site.index.count(spec.name, name)
    row = problem_row(site.index.index, spec.name, name, spec.prices)
    proofs = proofs_of(site.index.index, spec.name, name)
    number = page_number(request)
    is_by_id = request.query_params.get("sort") == "id"
    ordered = sorted(proofs, key=lambda proof: sort_key(proof.id)) if is_by_id else proofs
    shown = ordered[(number - 1) * ROWS : number * ROWS]
    best = row.best if row else None
    tree = refinements(proofs, best)
    nodes = proofs[:NODES] if tree else []
    site.record_reading(request, spec.name, judged([*shown, *nodes], best))
    return site.page(
        "problem",
        spec=spec,
        problem=record,
        filled=filled,
        row=row,
        is_priced=spec.prices != Prices(),
        proofs=shown,
        count=len(proofs),
        number=number,
        pages=-(-len(proofs) // ROWS),
        is_by_id=is_by_id,
        waiting=list(waiting(site.store, spec, name, {proof.id for proof in proofs})),
        tree=tree,
        left_out=max(0, len(proofs) - NODES),
        link=partial(with_query, request),
    )


def judged(shown: Sequence[ProofRow], best: str | None) -> set[str]:
    """The proofs whose label the page tells; of the best one it tells the rank."""
    return {proof.id for proof in shown} | ({best} if best else set())


def refinements(proofs: Sequence[ProofRow], best: str | None) -> tuple[Node, ...]:
    """The tree by each proof's first parent; empty if no proof refines another."""
    shown = sorted(proofs[:NODES], key=lambda proof: sort_key(proof.id))
    known = {proof.id for proof in shown}
    children: dict[str, list[ProofRow]] = defaultdict(list)
    for proof in shown:
        parent = next((each for each in proof.parents if each in known), "")
        children[parent].append(proof)
    if not children.keys() - {""}:
        return ()
    return tuple(_node(proof, children, best) for proof in children[""])


def _node(proof: ProofRow, children: Mapping[str, Sequence[ProofRow]], best: str | None) -> Node:
    below = tuple(_node(child, children, best) for child in children.get(proof.id, ()))
    leads = proof.id == best or any(child.leads_to_best for child in below)
    return Node(proof, below, leads)


def waiting(store: Store, spec: RunSpec, problem: str, labeled: set[str]) -> Iterator[WaitingProof]:
    """The first posed proofs without a label."""
    names = (proof_id(problem, number) for number in range(_posed(store, spec, problem)))
    for name in islice((name for name in names if name not in labeled), WAITING):
        yield WaitingProof(name, store.exists(keys.proof(spec.name, name)))


def _posed(store: Store, spec: RunSpec, problem: str) -> int:
    """The number of requested proofs of the problem; 1 for a given proof."""
    if last := last_record(store, keys.rounds_of(spec.name, problem), SearchRound):
        return last.first + len(last.parents)
    return 1 if spec.problems.given_file else spec.problems.proofs_per_problem
