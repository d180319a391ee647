"""The gate between stages: a version serves unless it is worse on the validation split by more than
the noise.

Both versions answer the same cases with the same seeds. The experts' grades measure the answers;
without grades, the judges in service do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from proofloop.config.given_files import GradedProof, in_split
from proofloop.curriculum.status import GateReport
from proofloop.errors import HintedError
from proofloop.method.domains import need_critique_finding, need_proof_finding
from proofloop.method.prompts.reading.parsing import ParsedEvaluation
from proofloop.method.rewards import score_reward
from proofloop.runs.figures import Clusters
from proofloop.schema.records import ModelRole
from proofloop_trainer.curriculum.cases import (
    CaseFile,
    balanced,
    draw_analyses,
    draw_proofs,
    grade_analyses,
    grade_proofs,
)
from proofloop_trainer.curriculum.rollouts import Judges, answered
from proofloop_trainer.curriculum.work import VALIDATION, Work

ANSWERS = 2
"""Answers a case: more cases narrow the noise better than more answers."""


def held_out(work: Work, version: str) -> CaseFile:
    """The validation cases, half of them flawed: the experts' files', or drawn once from the first
    model and graded.
    """

    def draw() -> CaseFile:
        wanted, rng = work.spec.data.validation, work.rng("held-out")
        if work.grades:
            graded: list[GradedProof] = in_split(work.grades.proofs, VALIDATION)
        else:
            questions = work.questions(wanted * 2, VALIDATION)
            drawn = draw_proofs(
                questions, work.asker("generator", version, "held-out"), work.pack, (1.0,)
            )
            graded = grade_proofs(drawn, work.domain)
        proofs = balanced(graded, lambda proof: proof.score < 1, wanted, rng)
        if work.grades:
            analyses = in_split(work.grades.analyses, VALIDATION)
        else:
            verifier = work.asker("verifier", version, "held-out")
            analyses = grade_analyses(
                draw_analyses(proofs, verifier, work.pack, (1.0,)), work.domain
            )
        return CaseFile(
            proofs=tuple(proofs),
            analyses=tuple(balanced(analyses, lambda case: case.quality, wanted, rng)),
        )

    return work.cases("validation", draw)


def compare(
    work: Work,
    role: ModelRole,
    before: str,
    after: str,
    cases: CaseFile,
    served: Mapping[ModelRole, str],
) -> GateReport:
    """Whether `after` may serve the role instead of `before`. Without a checker, the judges
    `served` measure both.
    """
    figure, asked, value = FIGURES[role]
    judges, questions = work.judges(served, "gate"), asked(cases)
    if not questions:
        raise HintedError(
            f"no validation cases to compare versions of the {role}: {len(cases.proofs)} graded"
            f" proofs and {len(cases.analyses)} analyses that report an issue",
            "raise [data] validation, or train the cold start longer",
        )
    values = [value(work, version, cases, judges) for version in (before, after)]
    name = (
        figure
        if work.grades is None or role == "meta_verifier"
        else f"{figure}, by the judges in service"
    )
    return paired(name, questions, *values, z=work.spec.gate.z)


def paired(
    figure: str,
    questions: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    *,
    z: float,
) -> GateReport:
    """The mean of the cases' differences, and `z` of its standard errors as noise; cases of a
    question are alike.
    """
    differences = Clusters()
    for question, old, new in zip(questions, before, after, strict=True):
        differences.add(question, new - old)
    return GateReport(
        figure=figure,
        before=fmean(before),
        after=fmean(after),
        difference=differences.mean,
        noise=z * differences.error,
        promoted=differences.mean >= -z * differences.error,
    )


def _verifier(work: Work, version: str, cases: CaseFile, judges: Judges) -> list[float]:
    """R_score times the quality of the analysis: a right score for a wrong reason is worth
    nothing.
    """
    prompts = [work.pack.verify(case.question, case.solution).text for case in cases.proofs]
    answers = work.asker("verifier", version, "gate").ask(prompts, ANSWERS)
    read = answered(cases.proofs, answers, work.pack.reader().evaluation)
    qualities = _qualities(work, read, judges)
    return _means(
        score_reward(each.verdict.score, case.score) * quality
        if each.verdict.score is not None
        else 0.0
        for (case, each), quality in zip(read, qualities, strict=True)
    )


def _qualities(
    work: Work, read: Sequence[tuple[GradedProof, ParsedEvaluation]], judges: Judges
) -> list[float]:
    """By the experts where they are there to grade, else by the meta-verifier in service."""
    if work.grades is None:
        return [
            need_critique_finding(work.domain, case.question, case.solution, each.text).quality
            for case, each in read
        ]
    claiming = [
        (case.question, case.solution, each.text) if each.verdict.score in (0.0, 0.5) else None
        for case, each in read
    ]
    return [quality or 0.0 for quality in judges.qualities(claiming)]


def _means(values: Iterable[float]) -> list[float]:
    """Of each case's answers."""
    listed = list(values)
    return [fmean(listed[place : place + ANSWERS]) for place in range(0, len(listed), ANSWERS)]


def _meta_verifier(work: Work, version: str, cases: CaseFile, judges: Judges) -> list[float]:
    """R_score against the experts' quality score."""
    prompts = [
        work.pack.judge(case.question, case.solution, case.analysis).text for case in cases.analyses
    ]
    answers = work.asker("meta_verifier", version, "gate").ask(prompts, ANSWERS)
    return _means(
        score_reward(each.verdict.score, case.quality) if each.verdict.score is not None else 0.0
        for case, each in answered(cases.analyses, answers, work.pack.reader().meta_critique)
    )


def _generator(work: Work, version: str, cases: CaseFile, judges: Judges) -> list[float]:
    """The share of right proofs; without a checker the mean score that the verifier gives."""
    questions = _problems(cases)
    answers = work.asker("generator", version, "gate").ask(
        [work.pack.prove(each).text for each in questions], ANSWERS
    )
    proofs = [
        (question, each.solution) if each.verdict.score is not None else None
        for question, each in answered(questions, answers, work.pack.reader().proof)
    ]
    if work.grades is None:
        scores = [
            float(proof is not None and need_proof_finding(work.domain, *proof).score == 1)
            for proof in proofs
        ]
    else:
        scores = judges.scores(proofs)
    return _means(scores)


def _problems(cases: CaseFile) -> list[str]:
    return list(dict.fromkeys(case.question for case in cases.proofs))


Value = Callable[[Work, str, CaseFile, Judges], list[float]]
FIGURES: dict[ModelRole, tuple[str, Callable[[CaseFile], list[str]], Value]] = {
    "verifier": (
        "score reward times quality of the analysis",
        lambda cases: [case.question for case in cases.proofs],
        _verifier,
    ),
    "meta_verifier": (
        "score reward",
        lambda cases: [case.question for case in cases.analyses],
        _meta_verifier,
    ),
    "generator": ("Pass@1", _problems, _generator),
}
"""Of each role what is compared, the question of each case, and the value of each case."""
