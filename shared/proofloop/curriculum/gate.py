"""The gate between stages: a version serves unless it is worse on the validation split by more than
the noise.

Both versions answer the same cases with the same random numbers, each in a run of its own, which
later gates use again. An exact checker measures the answers; without one, people's grades and the
judges in service do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.curriculum.answers import judge, prove, review
from proofloop.curriculum.cases import CaseFile
from proofloop.curriculum.compose import Served, everywhere
from proofloop.curriculum.status import GateReport
from proofloop.curriculum.work import Work
from proofloop.errors import HintedError
from proofloop.method.rewards import score_reward
from proofloop.runs.figures import Clusters
from proofloop.schema.records import ModelRole, digest

ANSWERS = 2
"""Answers to a case: more cases narrow the noise better than more answers."""

FIGURES: dict[ModelRole, str] = {
    "verifier": "score reward times quality of the analysis",
    "meta_verifier": "score reward",
    "generator": "Pass@1",
}
"""What is compared of the versions of each role."""

Case = GradedProof | GradedAnalysis | str


def compare(work: Work, role: ModelRole, after: str, cases: CaseFile, served: Served) -> GateReport:
    """Whether `after` may serve the role instead of the version in service. Without a checker, the
    judges `served` measure both.
    """
    if not (cases.analyses if role == "meta_verifier" else cases.proofs):
        raise HintedError(
            f"no validation cases to compare versions of the {role}: {len(cases.proofs)} graded"
            f" proofs and {len(cases.analyses)} analyses that report an issue",
            "raise [data] validation, or train the cold start longer",
        )
    old = _means(work, role, served, cases)
    new = _means(work, role, {**served, role: after}, cases)
    both = [case for case in old if case in new]
    if not both:
        raise HintedError(
            f"no answer of the {role} to a validation case has a known quality",
            "the meta-verifier's answers cannot be read: look at them with `proofloop proof`",
        )
    questions = [case if isinstance(case, str) else case.question for case in both]
    is_judged = work.sources.grades is not None and role != "meta_verifier"
    figure = FIGURES[role] + (", by the judges in service" if is_judged else "")
    z = work.spec.gate.z
    return paired(
        figure, questions, [old[case] for case in both], [new[case] for case in both], z=z
    )


def paired(
    figure: str,
    questions: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    *,
    z: float,
) -> GateReport:
    """The mean difference over the cases, and `z` standard errors of it as noise; cases of one
    question are a cluster.
    """
    differences = Clusters()
    for question, old, new in zip(questions, before, after, strict=True):
        differences.add(question, new - old)
    noise = z * differences.error
    return GateReport(
        figure=figure,
        before=fmean(before),
        after=fmean(after),
        difference=differences.mean,
        noise=noise,
        promoted=differences.mean >= -noise,
    )


def _means(work: Work, role: ModelRole, served: Served, cases: CaseFile) -> dict[Case, float]:
    """The mean value of each case."""
    # Judges are named only where they measure: other gates find the version's run again.
    named = served if work.sources.grades else everywhere(served[role])
    seed_as = f"{work.spec.name}-gate-{role}"
    name = f"gate-{role}-{digest(' '.join(named.values()))}"
    values = defaultdict[Case, list[float]](list)
    for case, value in _values(work, name, role, named, cases, seed_as):
        values[case].append(value)
    return {case: fmean(each) for case, each in values.items()}


def _values(
    work: Work, name: str, role: ModelRole, served: Served, cases: CaseFile, seed_as: str
) -> list[tuple[Case, float]]:
    """The value of each answer. A right score for a wrong reason is worth nothing. Critiques of
    unknown quality are left out.
    """
    if role == "verifier":
        critiques = review(work, name, served, cases.proofs, ANSWERS, seed_as=seed_as)
        return [
            (each.case, _worth(each.score, each.case.score) * each.quality)
            for each in critiques
            if each.quality is not None
        ]
    if role == "meta_verifier":
        scores = judge(work, name, served, cases.analyses, ANSWERS, seed_as=seed_as)
        return [(case, _worth(score, case.quality)) for case, score in scores]
    questions = list(dict.fromkeys(case.question for case in cases.proofs))
    proofs = prove(work, name, served, questions, ANSWERS, seed_as=seed_as)
    is_checked = work.sources.grades is None
    return [
        (each.question, float(each.truth == 1) if is_checked else each.truth) for each in proofs
    ]


def _worth(score: float | None, actual: float) -> float:
    return 0.0 if score is None else score_reward(score, actual)
