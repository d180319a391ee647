"""The data sets, each drawn once. D_v, D_mv and the held-out cases come from runs of the first
models, graded by the exact checker, or from files that people graded. The judges in service label
new proofs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.config.run_file.problems import Split
from proofloop.curriculum.answers import prove, review
from proofloop.curriculum.cases import CaseFile, balanced, by_quality, is_flawed, sample
from proofloop.curriculum.compose import Served, at_temperature, everywhere, run_spec
from proofloop.curriculum.sources import TRAIN, VALIDATION
from proofloop.curriculum.status import manifests, serving_before
from proofloop.curriculum.work import Work
from proofloop.method.domains import Domain
from proofloop.runs.labels import scored_proofs
from proofloop.schema.records import digest

EACH = 2
"""Analyses of a proof that are drawn at a temperature."""


def graded_proofs(work: Work, generator: str) -> list[GradedProof]:
    """D_v: proofs of the first generator, or of a file; as many flawed as sound."""

    def draw() -> CaseFile:
        data = work.spec.data
        if work.sources.grades:
            proofs = work.sources.grades.proofs_in(TRAIN)
        else:
            questions = work.sources.questions(data.problems)
            proofs = draw_proofs(work, "D_v", questions, generator, data.temperatures)
        chosen = balanced(proofs, is_flawed, data.proofs, work.rng("D_v"))
        return CaseFile(proofs=tuple(chosen))

    return list(work.once("D_v", draw).proofs)


def graded_analyses(work: Work, served: Served) -> list[GradedAnalysis]:
    """D_mv: analyses by the first model and the verifier in service, or those of a file."""

    def draw() -> CaseFile:
        most = work.spec.data.analyses
        if work.sources.grades:
            graded = work.sources.grades.analyses_in(TRAIN)
        else:
            graded = _draw_of_both(work, served, most // 3)
        return CaseFile(analyses=tuple(by_quality(graded, most, work.rng("D_mv"))))

    return list(work.once("D_mv", draw).analyses)


def _draw_of_both(work: Work, served: Served, proofs_each: int) -> list[GradedAnalysis]:
    proofs = graded_proofs(work, served["generator"])
    temperatures = work.spec.data.analysis_temperatures
    found: list[GradedAnalysis] = []
    for version in dict.fromkeys((served["meta_verifier"], served["verifier"])):
        some = sample(proofs, proofs_each, work.rng("D_mv", version))
        found += draw_analyses(work, f"D_mv-{digest(version)}", some, version, temperatures)
    return found


def held_out(work: Work, version: str) -> CaseFile:
    """The validation cases, half of them flawed: from the files, or drawn from the first model."""

    def draw() -> CaseFile:
        wanted, rng = work.spec.data.validation, work.rng("held-out")
        if grades := work.sources.grades:
            proofs = balanced(grades.proofs_in(VALIDATION), is_flawed, wanted, rng)
            analyses = grades.analyses_in(VALIDATION)
        else:
            questions = work.sources.questions(wanted * 2, VALIDATION)
            drawn = draw_proofs(work, "held-out", questions, version, (1.0,))
            proofs = balanced(drawn, is_flawed, wanted, rng)
            analyses = draw_analyses(work, "held-out-analyses", proofs, version, (1.0,))
        chosen = by_quality(analyses, wanted, rng)
        return CaseFile(proofs=tuple(proofs), analyses=tuple(chosen))

    return work.once("validation", draw)


def draw_proofs(
    work: Work, name: str, questions: Sequence[str], generator: str, temperatures: Sequence[float]
) -> list[GradedProof]:
    """Different readable proofs of these problems, one for each temperature, graded by the exact
    checker.
    """
    found = dict[GradedProof, None]()
    for number, temperature in enumerate(temperatures):
        hot = at_temperature(work.spec, "generator", temperature)
        proofs = prove(work, f"{name}-{number}", everywhere(generator), questions, 1, **hot)
        found |= dict.fromkeys(
            GradedProof(
                question=each.question, solution=each.proof.solution, score=each.truth, by="checker"
            )
            for each in proofs
            if each.own is not None
        )
    return list(found)


def draw_analyses(
    work: Work,
    name: str,
    proofs: Sequence[GradedProof],
    verifier: str,
    temperatures: Sequence[float],
) -> list[GradedAnalysis]:
    """Different analyses that report an issue, a few for each proof and temperature, graded by the
    exact checker.
    """
    found = dict[GradedAnalysis, None]()
    for number, temperature in enumerate(temperatures):
        hot = at_temperature(work.spec, "verifier", temperature)
        critiques = review(work, f"{name}-{number}", everywhere(verifier), proofs, EACH, **hot)
        found |= dict.fromkeys(
            GradedAnalysis(
                question=each.case.question,
                solution=each.case.solution,
                analysis=each.analysis,
                quality=each.quality,
                by="checker",
            )
            for each in critiques
            if each.reports_issue and each.quality is not None
        )
    return list(found)


# -- labels


def label_proofs(work: Work, iteration: int, served: Served) -> list[GradedProof]:
    """Label proofs of the next iteration's problems by the judges in service and the labeling rule,
    and keep those with a score, each once.
    """

    def draw() -> CaseFile:
        found = dict[GradedProof, None]()
        writers = _writers(work, iteration, served)
        domains = work.sources.domains(iteration + 1)
        for domain, (writer, suffix) in product(domains, writers.items()):
            name = f"{iteration}-label-{domain.name}{suffix}"
            judged: Served = {**served, "generator": writer}
            run = label_run(work, name, judged, domain, TRAIN, 1_000 + iteration)
            rows = scored_proofs(work.store, run)
            found |= dict.fromkeys(GradedProof.model_validate(row) for row in rows)
        return CaseFile(proofs=tuple(found))

    return list(work.once(f"labels-{iteration}", draw).proofs)


def labeled_proofs(work: Work, iteration: int) -> Iterator[GradedProof]:
    """The labeled proofs of this and all earlier iterations."""
    for number in range(1, iteration + 1):
        yield from work.once(f"labels-{number}", CaseFile).proofs


def label_run(
    work: Work, name: str, served: Served, domain: Domain, split: Split, seed: int
) -> str:
    """Take the proofs of a small run through the whole pipeline. Returns the run's name."""
    wanted = work.spec.labels
    problems = work.sources.problems(domain, split, wanted.problems, wanted.proofs_per_problem)
    sections = {"problems": problems, "labeling": wanted.rule, "seed": work.spec.seed + seed}
    return work.finish(run_spec(work.spec, name, served, **sections))


def _writers(work: Work, iteration: int, served: Served) -> dict[str, str]:
    """The generators by version, each with the suffix of its runs: the newest, and perhaps its
    predecessor, because the newest makes few mistakes to learn from.
    """
    writers = {served["generator"]: ""}
    if work.spec.labels.earlier:
        done = manifests(work.store, work.spec)
        before = serving_before(work.spec, done, f"{iteration}-generator")
        writers.setdefault(before["generator"], "-earlier")
    return writers
