"""What nano models make of each kind of flaw, as verifiers and as meta-verifiers:

    python -m proofloop_trainer.nano.by_flaw FOLDER ...

Proofs of validation problems, each with a flaw of one kind: a step left out and the value `kept` or `lost`, several in
a row left out (`gap`), a line `miscopied` or `miscalculated`. Prints a table in Markdown.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from proofloop.domains.nano import Chain, Defect, Line, NanoDomain, find_defects, parse_question, render_proof, score_of
from proofloop.errors import ProofloopError
from proofloop_serving.loading import LoadedModel, load_model
from proofloop_trainer.nano.claims import misstate, near_miss
from proofloop_trainer.nano.demonstrations import render_critique
from proofloop_trainer.nano.evaluate import PACK, READER, ask
from proofloop_trainer.nano.flaws import gap, lines_with_flaws

PROBLEMS, CRITIQUES, JUDGEMENTS = 80, 8, 4
FLAWS = ("sound", "kept", "lost", "gap", "miscopied", "miscalculated")
DOMAINS = (NanoDomain(), NanoDomain("nano-long"))


@dataclass(frozen=True)
class Case:
    """A proof with its flaw, a true analysis of it, and one of which a claim is false, as by a wrong digit."""

    question: str
    proof: str
    score: float
    true_analysis: str
    false_analysis: str


@dataclass(frozen=True)
class ByFlaw:
    """Shares in [0, 1]; None of nothing."""

    domain: str
    flaw: str
    accuracy: float | None  # of critiques: the score is the true one
    faithfulness: float | None  # of those: what they claim is real
    true_upheld: float | None  # judgements of true analyses that give them their quality, 1
    false_caught: float | None  # the same with a false claim: 0, or 0.5 where a true one stands beside it


def by_flaw(model: LoadedModel, problems: int = PROBLEMS) -> Iterator[ByFlaw]:
    """A row for each domain and flaw, of proofs of so many problems."""
    for domain in DOMAINS:
        for flaw in FLAWS:
            yield _row(model, domain, flaw, list(_cases(domain, flaw, problems)))


def _cases(domain: NanoDomain, flaw: str, problems: int) -> Iterator[Case]:
    rng = random.Random(f"{domain.name}/{flaw}")
    for index in range(problems):
        question = domain.pose(index, split="validation", seed=9).question
        chain = parse_question(question)
        label = rng.choice(chain.steps).label
        flaws = {} if flaw == "sound" else {label: "missing" if flaw in ("kept", "lost") else flaw}
        flaws = gap(rng, chain) if flaw == "gap" else flaws
        lines = lines_with_flaws(rng, chain, flaws, {"lost": 1.0, "gap": 0.5}.get(flaw, 0.0))
        defects, proof = find_defects(chain, lines), render_proof(lines)
        if lines:
            claims, score = defects[:2], score_of(defects)
            true, false = render_critique(claims, score), render_critique(_one_false(rng, chain, lines, defects), score)
            yield Case(question, proof, score, true, false)


def _one_false(
    rng: random.Random, chain: Chain, lines: Sequence[Line], defects: Sequence[Defect]
) -> tuple[Defect, ...]:
    """The first two defects, the first of them made false, where it shows a line; otherwise a false claim alone."""
    if not defects or not defects[0].detail:
        return (near_miss(rng, chain, lines, defects),)
    return (misstate(rng, defects[0]), *defects[1:2])


def _row(model: LoadedModel, domain: NanoDomain, flaw: str, cases: list[Case]) -> ByFlaw:
    asked = [case for case in cases for _ in range(CRITIQUES)]
    answers = ask(model, [PACK.verify(case.question, case.proof).text for case in asked])
    right, faithful = list[bool](), list[bool]()
    for case, answer in zip(asked, answers, strict=True):
        parsed = READER.evaluation(*answer)
        right.append(parsed.verdict.score == case.score)
        if right[-1]:
            faithful.append(domain.check_critique(case.question, case.proof, parsed.text).faithful)
    row = ByFlaw(domain.name, flaw, _share(right), _share(faithful), None, None)
    if flaw == "sound":
        return row
    true = _judged(model, domain, [(case.question, case.proof, case.true_analysis) for case in cases])
    false = _judged(model, domain, [(case.question, case.proof, case.false_analysis) for case in cases])
    return replace(row, true_upheld=_share(true), false_caught=_share(false))


def _judged(model: LoadedModel, domain: NanoDomain, analyses: list[tuple[str, str, str]]) -> list[bool]:
    asked = [each for each in analyses for _ in range(JUDGEMENTS)]
    answers = ask(model, [PACK.judge(*each).text for each in asked])
    return [
        READER.meta_critique(*answer).verdict.score == domain.check_critique(*each).quality
        for each, answer in zip(asked, answers, strict=True)
    ]


def _share(found: Sequence[bool]) -> float | None:
    return fmean(found) if found else None


def main(folders: Sequence[str]) -> None:
    """Print the table, row by row."""
    names = [field.name for field in fields(ByFlaw)]
    print("| " + " | ".join(["model", *names]) + " |\n" + "|---" * (len(names) + 1) + "|", flush=True)
    for folder in folders:
        name = "/".join(Path(folder).resolve().parts[-2:])
        for row in by_flaw(load_model(Path(folder))):
            cells = (
                "-" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else cell for cell in astuple(row)
            )
            print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or sys.exit(__doc__))
    except ProofloopError as error:
        sys.exit(f"error: {error}")
