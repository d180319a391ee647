"""The gate between stages: a version serves unless it is worse on the validation split by more than the noise.

Both versions answer about the same cases with the same seeds, and the experts' grades say how well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from proofloop.curriculum import GateReport
from proofloop.prompts.parsing import parse_evaluation, parse_meta_critique, parse_proof
from proofloop.records import ModelRole
from proofloop.rewards import score_reward
from proofloop_trainer.curriculum.cases import (
    CaseFile,
    balanced,
    draw_analyses,
    draw_proofs,
    grade_analyses,
    grade_proofs,
)
from proofloop_trainer.curriculum.work import VALIDATION, Work

ANSWERS = 2
"""Answers a case: more cases narrow the noise better than more answers."""


def held_out(work: Work, version: str) -> CaseFile:
    """The validation cases, drawn once from the cold start's model and graded by the experts, half of them flawed."""

    def draw() -> CaseFile:
        wanted, rng = work.spec.data.validation, work.rng("held-out")
        questions = work.questions(wanted * 2, VALIDATION)
        proofs = draw_proofs(questions, work.asker("generator", version, "held-out"), work.pack, (1.0,))
        chosen = balanced(grade_proofs(proofs, work.domain), lambda proof: proof.score < 1, wanted, rng)
        verifier = work.asker("verifier", version, "held-out")
        analyses = grade_analyses(draw_analyses(chosen, verifier, work.pack, (1.0,)), work.domain)
        return CaseFile(
            proofs=tuple(chosen), analyses=tuple(balanced(analyses, lambda case: case.quality, wanted, rng))
        )

    return work.cases("validation", draw)


def compare(work: Work, role: ModelRole, before: str, after: str, cases: CaseFile) -> GateReport:
    """Whether `after` may serve the role in the place of `before`."""
    figure, value = FIGURES[role]
    values = [value(work, version, cases) for version in (before, after)]
    return paired(figure, *values, z=work.spec.gate.z)


def paired(figure: str, before: Sequence[float], after: Sequence[float], *, z: float) -> GateReport:
    """The mean of the cases' differences, and `z` of its standard errors as the noise."""
    differences = [new - old for old, new in zip(before, after, strict=True)]
    noise = z * stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    difference = fmean(differences)
    return GateReport(
        figure=figure,
        before=fmean(before),
        after=fmean(after),
        difference=difference,
        noise=noise,
        promoted=difference >= -noise,
    )


def _verifier(work: Work, version: str, cases: CaseFile) -> list[float]:
    """R_score times the experts' quality of the analysis: a right score for a wrong reason is worth nothing."""
    prompts = [work.pack.verify(case.question, case.solution).text for case in cases.proofs]
    answers = work.asker("verifier", version, "gate").ask(prompts, ANSWERS)
    values = []
    for case, group in zip(cases.proofs, answers, strict=True):
        parsed = [parse_evaluation(answer.text, answer.finish_reason) for answer in group]
        values.append(
            fmean(
                score_reward(each.verdict.score, case.score)
                * work.domain.check_critique(case.question, case.solution, each.text).quality
                if each.verdict.score is not None
                else 0.0
                for each in parsed
            )
        )
    return values


def _meta_verifier(work: Work, version: str, cases: CaseFile) -> list[float]:
    """R_score against the experts' quality score."""
    prompts = [work.pack.judge(case.question, case.solution, case.analysis).text for case in cases.analyses]
    answers = work.asker("meta_verifier", version, "gate").ask(prompts, ANSWERS)
    values = []
    for case, group in zip(cases.analyses, answers, strict=True):
        scores = [parse_meta_critique(answer.text, answer.finish_reason).verdict.score for answer in group]
        values.append(fmean(0.0 if score is None else score_reward(score, case.quality) for score in scores))
    return values


def _generator(work: Work, version: str, cases: CaseFile) -> list[float]:
    """The share of right proofs."""
    questions = list(dict.fromkeys(case.question for case in cases.proofs))
    answers = work.asker("generator", version, "gate").ask([work.pack.prove(each).text for each in questions], ANSWERS)
    values = []
    for question, group in zip(questions, answers, strict=True):
        proofs = [parse_proof(answer.text, answer.finish_reason) for answer in group]
        values.append(
            fmean(
                proof.verdict.score is not None and work.domain.check_proof(question, proof.solution).score == 1
                for proof in proofs
            )
        )
    return values


FIGURES: dict[ModelRole, tuple[str, Callable[[Work, str, CaseFile], list[float]]]] = {
    "verifier": ("score reward times quality of the analysis", _verifier),
    "meta_verifier": ("score reward", _meta_verifier),
    "generator": ("Pass@1", _generator),
}
