"""The success rates of the attacks, and the effect of fences and parsing without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from proofloop.judging.attacks.kinds import ATTACKS
from proofloop.judging.predictions import Way, predict, ways
from proofloop.judging.rows import JudgedProof
from proofloop.method.acceptance import scores_of
from proofloop.method.prompts import PromptPack, Reading
from proofloop.runs.figures import Clusters, Figure
from proofloop.schema.given import GivenCase
from proofloop.schema.records import Record

ON_PARSER = frozenset(attack.name for attack in ATTACKS if attack.on_parser)


class AttackFigures(Record):
    """One kind of attack. `succeeds`: by way, the share of manipulated proofs that are accepted.
    `critiques`: the share of single critiques that give 1.
    """

    attack: str
    proofs: int
    succeeds: Mapping[str, Figure]
    critiques: Figure


class ParserFigures(Record):
    """The effect of a pack's fences and reading on manipulated proofs, without a model.

    `escaped`: prompts in which the proof ends its own fence; None for a pack without fences.
    `misread`: answers that quote the proof, and were read as the proof's planted score.
    """

    attack: str
    proofs: int
    escaped: int | None
    misread: int


def attack_figures(
    rows: Sequence[JudgedProof], *, n: int, k: int, has_meta: bool
) -> Iterator[AttackFigures]:
    """The figures of each kind, in the order of the run."""
    found = ways(k, has_meta=has_meta)
    for kind in dict.fromkeys(row.attack for row in rows):
        some = [row for row in rows if row.attack == kind]
        yield AttackFigures(
            attack=kind,
            proofs=len(some),
            succeeds={name: _accepted(some, way, n) for name, way in found.items()},
            critiques=_fooled(some),
        )


def _accepted(rows: Sequence[JudgedProof], way: Way, n: int) -> Figure:
    clusters = Clusters()
    for row in rows:
        clusters.add(row.problem, float(predict(row, way, n).is_accepted))
    return clusters.figure()


def _fooled(rows: Sequence[JudgedProof]) -> Figure:
    clusters = Clusters()
    for row in rows:
        for score in scores_of(row.judgements):
            clusters.add(row.problem, float(score == 1.0))
    return clusters.figure()


def parser_figures(
    cases: Sequence[GivenCase], pack: PromptPack, reading: Reading
) -> Iterator[ParserFigures]:
    """The figures of fences and reading, for each kind of attack on the parser."""
    for kind in dict.fromkeys(case.graded.attack for case in cases if case.graded):
        some = [case for case in cases if case.graded and case.graded.attack == kind]
        if kind in ON_PARSER:
            yield ParserFigures(
                attack=kind,
                proofs=len(some),
                escaped=sum(_escapes(pack, case) for case in some) if pack.fenced else None,
                misread=sum(_is_misread(pack, reading, case) for case in some),
            )


def _escapes(pack: PromptPack, case: GivenCase) -> bool:
    """Whether a line of the proof could end the fence around it."""
    proof = (case.solution or "").strip()
    prompt = pack.verify(case.question, proof, **case.problem(0).aids).text
    fence = re.search(rf"^(~{{3,}})\n{re.escape(proof)}\n\1$", prompt, re.MULTILINE)
    if fence is None:
        return True
    return any(re.fullmatch(rf"\s*~{{{len(fence[1])},}}\s*", line) for line in proof.splitlines())


def _is_misread(pack: PromptPack, reading: Reading, case: GivenCase) -> bool:
    """Whether an answer that quotes the proof is read as its planted score: one that goes on to
    give 0, and one that is cut off or ends after the quotation.
    """
    reader, proof = pack.reader(reading), (case.solution or "").strip()
    for quoted in (_in_a_fence(proof), "\n".join(f"> {line}" for line in proof.splitlines())):
        intro = f"{pack.phrases.evaluation_intro}\nThe solution says:\n\n{quoted}"
        analysis = f"The solution says:\n\n{quoted}\n\nThis proves nothing."
        whole = reader.evaluation(pack.evaluation(analysis, 0.0), "stop").verdict.score
        parts = [reader.evaluation(intro, reason).verdict.score for reason in ("stop", "length")]
        if whole not in (0.0, None) or any(score is not None for score in parts):
            return True
    return False


def _in_a_fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"~{3,}|`{3,}", text)), default=3)
    fence = "~" * (longest + 1)
    return f"{fence}\n{text}\n{fence}"
