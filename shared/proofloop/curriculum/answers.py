"""Lets a model of the curriculum answer cases in a run of their own, and reads the answers from the
store, case by case.

The exact checker measures the answers. Without one, the judges in the run do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.config.run_file import RunSpec
from proofloop.curriculum import cases, compose, watch
from proofloop.curriculum.compose import Served
from proofloop.curriculum.work import Work
from proofloop.method.domains import need_critique_finding, need_proof_finding
from proofloop.runs.answers import meta_critiques_of
from proofloop.schema import keys
from proofloop.schema.ids import case_id, proof_id
from proofloop.schema.records import Critique, Judgement, MetaCritique, Proof, Verdict
from proofloop.store import find_record, get_record


@dataclass(frozen=True)
class Proved:
    """A proof of a problem. `own`: its own score, None if it is unreadable. `truth`: the checker's
    score, or the mean of its critiques'; 0 if it is unreadable.
    """

    question: str
    proof: Proof
    own: float | None
    truth: float


@dataclass(frozen=True)
class Reviewed:
    """A critique of a graded proof. `quality`: the checker's grade of its claims, or R_meta; None
    if R_meta is unknown.
    """

    case: GradedProof
    analysis: str
    score: float | None
    quality: float | None
    is_faithful: bool

    @property
    def reports_issue(self) -> bool:
        return self.score in (0.0, 0.5)


def prove(
    work: Work, name: str, served: Served, questions: Sequence[str], times: int, **sections: Any
) -> list[Proved]:
    """`times` proofs of each problem, in order."""
    make = compose.proving_with_judges if work.sources.grades else compose.proving
    run = make(work.spec, name, served, times, **sections)
    work.finish(run, cases.given_problems(questions))
    ids = (proof_id(case_id(case), n) for case in range(len(questions)) for n in range(times))
    proofs = [get_record(work.store, keys.proof(run.name, each), Proof) for each in ids]
    _check_failed(work, run, [proof.verdict for proof in proofs])
    posed = (question for question in questions for _ in range(times))
    return [
        Proved(question, proof, proof.verdict.score, _truth(work, run, question, proof))
        for question, proof in zip(posed, proofs, strict=True)
    ]


def checked_score(work: Work, question: str, proof: Proof) -> float:
    """The checker's score; 0 if the proof is unreadable."""
    if proof.verdict.score is None:
        return 0.0
    return need_proof_finding(work.sources.domain, question, proof.solution).score


def _truth(work: Work, run: RunSpec, question: str, proof: Proof) -> float:
    if work.sources.grades is None or proof.verdict.score is None:
        return checked_score(work, question, proof)
    scores = [critique.verdict.score for critique in _critiques(work, run, proof.id)]
    return fmean([score for score in scores if score is not None] or [0.0])


def review(
    work: Work,
    name: str,
    served: Served,
    proofs: Sequence[GradedProof],
    times: int,
    **sections: Any,
) -> list[Reviewed]:
    """`times` critiques of each proof, in order."""
    metas = work.spec.generator.metas if work.sources.grades else 0
    run = compose.reviewing(work.spec, name, served, times, metas, **sections)
    work.finish(run, cases.given_proofs(proofs))
    found = [
        (case, critique)
        for number, case in enumerate(proofs)
        for critique in _critiques(work, run, proof_id(case_id(number), 0))
    ]
    _check_failed(work, run, [critique.verdict for _, critique in found])
    return [_reviewed(work, run, case, critique) for case, critique in found]


def judge(
    work: Work,
    name: str,
    served: Served,
    analyses: Sequence[GradedAnalysis],
    times: int,
    **sections: Any,
) -> list[tuple[GradedAnalysis, float | None]]:
    """The scores of `times` meta-critiques of each analysis, in order."""
    run = compose.judging(work.spec, name, served, times, **sections)
    work.finish(run, cases.given_analyses(analyses))
    found = [
        (case, of[number].verdict)
        for case, of in zip(analyses, _meta_critiques(work, run, len(analyses)), strict=True)
        for number in sorted(of)
    ]
    _check_failed(work, run, [verdict for _, verdict in found])
    return [(case, verdict.score) for case, verdict in found]


def _meta_critiques(work: Work, run: RunSpec, cases: int) -> Iterator[dict[int, MetaCritique]]:
    for number in range(cases):
        yield meta_critiques_of(work.store, run.name, proof_id(case_id(number), 0), 0)


def _check_failed(work: Work, run: RunSpec, verdicts: Sequence[Verdict]) -> None:
    """Raise HintedError if too many calls had no answer."""
    if verdicts:
        share = fmean(verdict.outcome == "engine_failed" for verdict in verdicts)
        watch.check_failed(work.short_name(run), share, work.spec.watch)


def _reviewed(work: Work, run: RunSpec, case: GradedProof, critique: Critique) -> Reviewed:
    analysis, score = critique.analysis, critique.verdict.score
    if work.sources.grades:
        key = keys.judgement(run.name, critique.proof_id, critique.index)
        quality = get_record(work.store, key, Judgement).quality
        return Reviewed(case, analysis, score, quality, is_faithful=False)
    domain = work.sources.domain
    finding = need_critique_finding(domain, case.question, case.solution, analysis)
    return Reviewed(case, analysis, score, finding.quality, finding.faithful)


def _critiques(work: Work, run: RunSpec, proof: str) -> Iterator[Critique]:
    for index in range(run.labeling.n):
        critique = find_record(work.store, keys.critique(run.name, proof, index), Critique)
        if critique is not None:
            yield critique
