"""The enhanced verifier: trained on D_v and D_mv together, while its meta-verifier is refreshed.

A verifier learns to deceive a meta-verifier that stays the same. With graded files it does stay the
same, because people cannot grade the new analyses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proofloop.config.curriculum_file import Stage
from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.config.run_file import RunSpec
from proofloop.curriculum import compose, gate
from proofloop.curriculum.cases import (
    CaseFile,
    by_quality,
    evenly,
    fill,
    given_analyses,
    given_proofs,
    sample,
)
from proofloop.curriculum.compose import Served, everywhere
from proofloop.curriculum.data import (
    draw_analyses,
    graded_analyses,
    graded_proofs,
    held_out,
    labeled_proofs,
)
from proofloop.curriculum.stages import gated, pick, start_of
from proofloop.curriculum.status import StageManifest
from proofloop.curriculum.work import Work
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.given import GivenCase

METAS = 3
"""Meta-critiques of each critique that reports an issue: their mean is R_meta."""


@dataclass(frozen=True)
class Material:
    """The material of a portion's steps. `labeled`: proofs with labels of earlier iterations.
    `meta_verifier` gives R_meta; empty: no R_meta and no D_mv.
    """

    proofs: list[GradedProof]
    labeled: list[GradedProof]
    analyses: list[GradedAnalysis]
    meta_verifier: str


def enhanced(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * R_score * R_meta, eq. (3), portion by portion, with a refresh between two.

    The ablation no-meta takes as many steps with as many prompts of D_v and nothing of D_mv.
    """
    wanted, run = work.spec.enhanced, _run(work, stage, served)
    material = _first_material(work, stage, served)
    for portion, first in enumerate(range(0, wanted.steps, wanted.refresh)):
        if portion and material.meta_verifier and work.sources.grades is None:
            material = _refresh(work, stage, run, portion, material)
        steps = range(first, min(first + wanted.refresh, wanted.steps))
        work.train(
            run, portion, [case for step in steps for case in _cases(work, stage, step, material)]
        )
    manifest = gated(work, stage, "verifier", served, work.version(run, "verifier"))
    return _with_meta_verifier(work, manifest, served, material.meta_verifier)


def _run(work: Work, stage: Stage, served: Served) -> RunSpec:
    """The cold start's model names fewer false flaws than the verifier trained by score alone: the
    KL term of iteration 1 pulls back to it.
    """
    spec, wanted, start = work.spec, work.spec.enhanced, start_of(work, stage, served)
    is_plain = stage.ablation == "no-meta"
    sections = compose.training(
        spec,
        "enhanced",
        groups=wanted.groups - wanted.meta_groups if is_plain else wanted.groups,
        reference=served["generator"] if stage.iteration == 1 else start,
    )
    return compose.reviewing(
        spec,
        stage.name,
        {**served, "verifier": start},
        wanted.samples,
        metas=0 if is_plain else METAS,
        given_m=wanted.samples,
        **sections,
    )


def _first_material(work: Work, stage: Stage, served: Served) -> Material:
    proofs = graded_proofs(work, served["generator"])
    labeled = list(labeled_proofs(work, stage.iteration - 1))
    labeled = evenly(labeled, work.rng("evenly", len(labeled)))
    if stage.ablation == "no-meta":
        return Material(proofs, labeled, [], "")
    analyses = graded_analyses(work, served) if work.spec.enhanced.meta_groups else []
    return Material(proofs, labeled, analyses, served["meta_verifier"])


def _cases(work: Work, stage: Stage, step: int, material: Material) -> list[GivenCase]:
    """Up to half of the proofs are labeled ones; D_v's fill the step."""
    wanted, rng = work.spec.enhanced, work.rng(f"{stage.iteration}-{stage.kind}/{step}")
    analyses = pick(work, stage, step, material.analyses, wanted.meta_groups)
    most = wanted.groups - (wanted.meta_groups if stage.ablation else len(analyses))
    new = sample(material.labeled, most // 2, rng)
    proofs = new + pick(work, stage, step, material.proofs, most - len(new))
    return [*given_proofs(proofs, material.meta_verifier), *given_analyses(analyses)]


def _refresh(work: Work, stage: Stage, run: RunSpec, number: int, before: Material) -> Material:
    """Train the meta-verifier on analyses of the newest verifier and as many earlier ones."""
    name, wanted = f"{stage.name}-refresh-{number}", work.spec.meta_verifier
    version = _verifier_before(work, run, name)
    new = work.once(name, lambda: _draw(work, name, version, before.proofs)).analyses
    analyses = [*new, *sample(before.analyses, len(new), work.rng(name))]
    steps = work.spec.enhanced.refresh_steps if analyses else 0
    if not steps:
        return replace(before, analyses=analyses)
    served: Served = {**everywhere(version), "meta_verifier": before.meta_verifier}
    sections = compose.training(work.spec, "meta_verifier", steps=steps)
    refresh = compose.judging(work.spec, name, served, wanted.samples, **sections)
    rngs = (work.rng(f"{name}/{step}") for step in range(steps))
    cases = [case for rng in rngs for case in fill(analyses, wanted.groups, rng)]
    work.train(refresh, 0, given_analyses(cases))
    work.store.delete_prefix(keys.all_checkpoints(refresh.name))  # no step continues from them
    meta_verifier = work.version(refresh, "meta_verifier")
    return replace(before, analyses=analyses, meta_verifier=meta_verifier)


def _verifier_before(work: Work, run: RunSpec, name: str) -> str:
    """The newest verifier as the refresh `name` began. It may have taken fewer steps than planned,
    and a resumed refresh keeps it.
    """
    begun = find_spec(work.store, f"{work.spec.name}-{name}-draw-0")
    return begun.models.verifier if begun else work.version(run, "verifier")


def _draw(work: Work, name: str, version: str, proofs: list[GradedProof]) -> CaseFile:
    most = work.spec.data.analyses // 2
    some = sample(proofs, most // 2, work.rng(name))
    temperatures = work.spec.data.analysis_temperatures
    graded = draw_analyses(work, f"{name}-draw", some, version, temperatures)
    return CaseFile(analyses=tuple(by_quality(graded, most, work.rng(name))))


def _with_meta_verifier(
    work: Work, manifest: StageManifest, served: Served, last: str
) -> StageManifest:
    """The manifest with the gate of the refreshed meta-verifier, if there is one."""
    if last in ("", served["meta_verifier"]):
        return manifest
    cases = held_out(work, served["generator"])
    report = gate.compare(work, "meta_verifier", last, cases, served)
    serves: Served = {"meta_verifier": last} if report.promoted else {}
    return manifest.model_copy(
        update={"serves": {**manifest.serves, **serves}, "gates": (*manifest.gates, report)}
    )
