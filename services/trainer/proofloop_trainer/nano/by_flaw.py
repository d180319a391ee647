"""Measures nano models as verifiers and meta-verifiers on each kind of flaw:

    python -m proofloop_trainer.nano.by_flaw FOLDER ...

The cases are proofs of validation problems with one kind of flaw each: a missing step after which
the value is right (`kept`) or wrong (`lost`), several missing steps in a row (`gap`), or a line
that is `miscopied` or `miscalculated`. Prints a Markdown table.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from proofloop.errors import ProofloopError
from proofloop.method.domains.base import Defect
from proofloop.method.domains.nano import (
    Chain,
    Line,
    NanoDomain,
    check_critique,
    find_defects,
    parse_question,
    render_proof,
    score_of,
)
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
    """A flawed proof with a true analysis of it, and an analysis with a false claim, for example a
    wrong digit.
    """

    question: str
    proof: str
    score: float
    true_analysis: str
    false_analysis: str


@dataclass(frozen=True)
class ByFlaw:
    """The figures of one kind of flaw: shares in [0, 1], None if there are no cases."""

    domain: str
    flaw: str
    accuracy: float | None  # of critiques: share with the true score
    faithfulness: float | None  # of those: share with real claims
    true_upheld: float | None  # of judgements of true analyses: share with the right quality, 1
    # of judgements of analyses with a false claim: share with the right quality, 0 or 0.5
    false_caught: float | None


def by_flaw(model: LoadedModel, problems: int = PROBLEMS) -> Iterator[ByFlaw]:
    """The figures for each domain and flaw, from proofs of this many problems."""
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
        if lines:
            defects = find_defects(chain, lines)
            score = score_of(defects)
            true = render_critique(defects[:2], score)
            false = render_critique(_one_false(rng, chain, lines, defects), score)
            yield Case(question, render_proof(lines), score, true, false)


def _one_false(
    rng: random.Random, chain: Chain, lines: Sequence[Line], defects: Sequence[Defect]
) -> tuple[Defect, ...]:
    """The first two defects with the first made false if it shows a line; otherwise a single false
    claim.
    """
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
            faithful.append(check_critique(case.question, case.proof, parsed.text).faithful)
    row = ByFlaw(domain.name, flaw, _share(right), _share(faithful), None, None)
    if flaw == "sound":
        return row
    true = _judged(model, [(case.question, case.proof, case.true_analysis) for case in cases])
    false = _judged(model, [(case.question, case.proof, case.false_analysis) for case in cases])
    return replace(row, true_upheld=_share(true), false_caught=_share(false))


def _judged(model: LoadedModel, analyses: list[tuple[str, str, str]]) -> list[bool]:
    asked = [each for each in analyses for _ in range(JUDGEMENTS)]
    answers = ask(model, [PACK.judge(*each).text for each in asked])
    return [
        READER.meta_critique(*answer).verdict.score == check_critique(*each).quality
        for each, answer in zip(asked, answers, strict=True)
    ]


def _share(found: Sequence[bool]) -> float | None:
    return fmean(found) if found else None


def main(folders: Sequence[str]) -> None:
    """Print the table, row by row."""
    names = [field.name for field in fields(ByFlaw)]
    print(
        "| " + " | ".join(["model", *names]) + " |\n" + "|---" * (len(names) + 1) + "|", flush=True
    )
    for folder in folders:
        name = "/".join(Path(folder).resolve().parts[-4:])
        for row in by_flaw(load_model(Path(folder))):
            print("| " + " | ".join([name, *map(_cell, astuple(row))]) + " |", flush=True)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else value


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or sys.exit(__doc__))
    except ProofloopError as error:
        sys.exit(f"error: {error}")
