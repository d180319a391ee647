"""The method's data sets: D_v and D_mv, graded by experts, and labeled proofs.

Where a domain has an exact checker it plays the experts: it grades what a model drew. Elsewhere
people graded files. Either grades what stands in D_v and D_mv and is held out, and none of the new
proofs that later iterations learn from.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.method.domains import Domain, need_critique_finding, need_proof_finding
from proofloop.method.prompts import PromptPack
from proofloop.schema.records import Record
from proofloop_trainer.curriculum.asking import Asker

T = TypeVar("T")

EACH = 2
"""Analyses of a proof that are drawn at a temperature."""


class CaseFile(Record):
    """A data set as it lies in the store."""

    proofs: tuple[GradedProof, ...] = ()
    analyses: tuple[GradedAnalysis, ...] = ()


def draw_proofs(
    questions: Sequence[str], generator: Asker, pack: PromptPack, temperatures: Iterable[float]
) -> list[tuple[str, str]]:
    """Different readable proofs: one a question and temperature."""
    prompts = [pack.prove(question).text for question in questions]
    found = dict[tuple[str, str], None]()
    for number, temperature in enumerate(temperatures):
        drawn = generator.ask(prompts, temperature=temperature, first=number)
        for question, answers in zip(questions, drawn, strict=True):
            for answer in answers:
                parsed = pack.reader().proof(answer.text, answer.finish_reason)
                if parsed.verdict.outcome == "valid":
                    found[question, parsed.solution] = None
    return list(found)


def grade_proofs(proofs: Iterable[tuple[str, str]], domain: Domain) -> list[GradedProof]:
    """What the experts say of these proofs."""
    return [
        GradedProof(
            question=question,
            solution=solution,
            score=need_proof_finding(domain, question, solution).score,
        )
        for question, solution in proofs
    ]


def draw_analyses(
    proofs: Sequence[GradedProof], verifier: Asker, pack: PromptPack, temperatures: Iterable[float]
) -> list[tuple[GradedProof, str]]:
    """Different readable analyses that report an issue: what a meta-verifier is asked about."""
    prompts = [pack.verify(proof.question, proof.solution).text for proof in proofs]
    found = dict[tuple[GradedProof, str], None]()
    for number, temperature in enumerate(temperatures):
        drawn = verifier.ask(prompts, EACH, temperature, first=number * EACH)
        for proof, answers in zip(proofs, drawn, strict=True):
            for answer in answers:
                parsed = pack.reader().evaluation(answer.text, answer.finish_reason)
                if parsed.verdict.score in (0.0, 0.5):
                    found[proof, parsed.text] = None
    return list(found)


def grade_analyses(
    analyses: Iterable[tuple[GradedProof, str]], domain: Domain
) -> list[GradedAnalysis]:
    """What the experts say of these analyses."""
    return [
        GradedAnalysis(
            question=proof.question,
            solution=proof.solution,
            analysis=analysis,
            quality=need_critique_finding(domain, proof.question, proof.solution, analysis).quality,
        )
        for proof, analysis in analyses
    ]


def balanced(
    cases: Sequence[T], kind: Callable[[T], Hashable], most: int, rng: random.Random
) -> list[T]:
    """At most so many cases in random order, as evenly from each kind as there are; of several no
    kind is over half.
    """
    shuffled = rng.sample(list(cases), len(cases))
    by_kind = defaultdict[Hashable, list[T]](list)
    for case in shuffled:
        by_kind[kind(case)].append(case)
    chosen = list[T]()
    waiting = sorted(by_kind.values(), key=len)
    for place, group in enumerate(waiting):  # what a rare kind lacks, the others share
        room = (most - len(chosen)) // (len(waiting) - place)
        is_last = chosen and place == len(waiting) - 1
        chosen += group[: min(room, len(chosen)) if is_last else room]
    return rng.sample(chosen, len(chosen))
