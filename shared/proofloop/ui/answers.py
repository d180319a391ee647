"""The page of one answer: a critique, a meta-critique, an attempt, or the proof as the model wrote
it, with its provenance and cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proofloop.config.run_file import EnginePrices, Prices
from proofloop.runs.answers import ROLE_OF_KIND, meta_critiques_of, raw_of_proof
from proofloop.runs.costs import Spent, spent
from proofloop.schema import keys
from proofloop.schema.ids import PROOF, AnswerName, parse_answer_name
from proofloop.schema.records import (
    Critique,
    MetaCritique,
    Proof,
    Provenance,
    RawAnswer,
    Verdict,
)
from proofloop.store import Store, find_record
from proofloop.ui.site import Site, named


@dataclass(frozen=True)
class Answer:
    """An answer as it was read and as it was written. `texts`: by heading."""

    name: AnswerName
    verdict: Verdict
    provenance: Provenance
    texts: dict[str, str]
    raw: RawAnswer | None

    @property
    def raw_text(self) -> str | None:
        """Its record leaves out a text that equals the parsed one."""
        if self.raw is None:
            return None
        return self.raw.text if self.raw.text is not None else next(iter(self.texts.values()))


def answer(site: Site, request: Request) -> Response:
    """The answer's page, or with `part=body` only the text, which other pages insert."""
    spec, proof = site.run(request), named(request, "proof")
    name = parse_answer_name(request.path_params["name"])
    found = find_answer(site.store, spec.name, proof, name) if name else None
    if name is None or found is None:
        raise HTTPException(404, f"Proof {proof} has no answer {request.path_params['name'][:60]}.")
    site.record_reading(request, spec.name, [proof])
    is_critique = name.kind == "critique"
    role = ROLE_OF_KIND[name.kind]
    return site.page(
        "answer_body" if request.query_params.get("part") == "body" else "answer",
        spec=spec,
        proof_id=proof,
        answer=found,
        role=role,
        metas=meta_critiques_of(site.store, spec.name, proof, name.index) if is_critique else {},
        cost=cost_of(found.provenance, spec.prices.of(role)),
        is_priced=spec.prices != Prices(),
    )


def cost_of(provenance: Provenance, prices: EnginePrices) -> Spent:
    """The cost of the call; empty for given material."""
    return spent(provenance, prices) if provenance.is_sampled else Spent()


def find_answer(store: Store, run: str, proof: str, name: AnswerName) -> Answer | None:
    """The answer of this name, or None."""
    key = keys.answer(run, proof, name if name.kind != "proof" else PROOF)
    match name.kind:
        case "proof" | "attempt":
            written = find_record(store, key, Proof)
            return _of_proof(store, name, written) if written else None
        case "meta":
            meta = find_record(store, key, MetaCritique)
            return _of(name, "Judgement", meta) if meta else None
        case _:
            critique = find_record(store, key, Critique)
            return _of(name, "Critique", critique) if critique else None


def _of(name: AnswerName, heading: str, found: Critique | MetaCritique) -> Answer:
    return Answer(name, found.verdict, found.provenance, {heading: found.analysis}, found.raw)


def _of_proof(store: Store, name: AnswerName, proof: Proof) -> Answer:
    texts = {"Solution": proof.solution, "Self-evaluation": proof.self_analysis}
    return Answer(name, proof.verdict, proof.provenance, texts, raw_of_proof(store, proof))
