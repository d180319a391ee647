"""The stages of the curriculum, each from the versions in service to its manifest.

Every stage is safe to repeat: it finds its data, its answers and its steps in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from proofloop.config.curriculum_file import GrpoStage, Stage
from proofloop.config.run_file import RunSpec
from proofloop.curriculum import compose, gate
from proofloop.curriculum.cases import (
    balanced,
    fill,
    given_analyses,
    given_problems,
    given_proofs,
    is_flawed,
    sample,
)
from proofloop.curriculum.compose import Served, everywhere
from proofloop.curriculum.data import (
    graded_analyses,
    graded_proofs,
    held_out,
    label_proofs,
    labeled_proofs,
)
from proofloop.curriculum.status import StageManifest
from proofloop.curriculum.work import Work
from proofloop.schema import keys
from proofloop.schema.given import GivenCase
from proofloop.schema.records import ALL_ROLES, ANSWERS, MODEL_ROLES, ModelRole

T = TypeVar("T")


def cold_start(work: Work, stage: Stage, served: Served) -> StageManifest:
    """Supervised steps on demonstrations; the model serves every role."""
    run = compose.cold_start(work.spec, stage.name)
    work.finish(run)
    version = work.version(run, ALL_ROLES)
    return StageManifest(stage=stage.name, version=version, serves=everywhere(version))


def verifier(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * R_score on D_v, eq. (2)."""
    spec, wanted = work.spec, work.spec.verifier
    proofs = graded_proofs(work, served["generator"])
    sections = compose.training(spec, "verifier")
    run = compose.reviewing(spec, stage.name, served, wanted.samples, **sections)
    work.train(run, 0, given_proofs(picked(work, stage, proofs, wanted)))
    return gated(work, stage, "verifier", served, work.version(run, "verifier"))


def meta_verifier(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * R_score on D_mv: analyses of the cold start's and the newest verifier."""
    spec, wanted = work.spec, work.spec.meta_verifier
    analyses = graded_analyses(work, served)
    sections = compose.training(spec, "meta_verifier")
    run = compose.judging(spec, stage.name, served, wanted.samples, **sections)
    work.train(run, 0, given_analyses(picked(work, stage, analyses, wanted)))
    return gated(work, stage, "meta_verifier", served, work.version(run, "meta_verifier"))


def generator(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * (alpha R_Y + beta R_Z) from the verifier's checkpoint, eq. (5), rewarded by the
    learned judges alone. The ablation no-self gives the whole weight to R_Y.
    """
    spec, wanted = work.spec, work.spec.generator
    start: Served = {**served, "generator": start_of(work, stage, served)}
    metas, sections = wanted.metas, compose.training(spec, "generator")
    if stage.ablation == "no-self":
        metas, sections["reward"] = 0, {"alpha": wanted.alpha + wanted.beta, "beta": 0.0}
    run = compose.proving_with_judges(spec, stage.name, start, wanted.samples, metas, **sections)
    work.train(run, 0, given_problems(_problems(work, stage)))
    return gated(work, stage, "generator", served, work.version(run, "generator"))


def _problems(work: Work, stage: Stage) -> Iterable[str]:
    """New problems for each step."""
    wanted, domains = work.spec.generator, work.sources.domains(stage.iteration)
    for step in range(wanted.steps):
        first = work.rng(stage.iteration, "problems", step).randrange(2**40)
        yield from work.sources.questions(wanted.groups, first=first, domains=domains)


def label(work: Work, stage: Stage, served: Served) -> StageManifest:
    """Labels for the generator's proofs of new problems, by the learned judges and the labeling
    rule alone.
    """
    scores = [proof.score for proof in label_proofs(work, stage.iteration, served)]
    counts = {f"score {score:g}": float(scores.count(score)) for score in (0.0, 0.5, 1.0)}
    return StageManifest(stage=stage.name, figures=counts)


def consolidate(work: Work, stage: Stage, served: Served) -> StageManifest:
    """Rejection fine-tuning: one model learns the best answers of every role's model. It starts
    from the generator's.

    Without graded analyses the meta-verifier answers nothing here and stays the same.
    """
    answered = {role: _answers(work, stage, role, served) for role in MODEL_ROLES}
    runs = [f"{work.finish(run, cases)}:{role}" for role, (run, cases) in answered.items() if cases]
    run = compose.consolidation(work.spec, stage.name, served, runs)
    work.finish(run)
    version = work.version(run, ALL_ROLES)
    counts = learned(work, run, [role for role, (_, cases) in answered.items() if cases])
    cases = held_out(work, served["generator"])
    roles = [role for role in MODEL_ROLES if cases.analyses or role != "meta_verifier"]
    gates = {role: gate.compare(work, role, version, cases, served) for role in roles}
    return StageManifest(
        stage=stage.name,
        version=version,
        serves={role: version for role, report in gates.items() if report.promoted},
        gates=tuple(gates.values()),
        figures=counts,
    )


def learned(work: Work, run: RunSpec, roles: Sequence[ModelRole]) -> dict[str, float]:
    """The number of answers of each role that the model learned from, with a warning for a role
    without any: the model may unlearn its work.
    """
    figures = work.last_step(run).figures
    counts = {role: figures.get(f"{ANSWERS}{role}", 0.0) for role in roles}
    shown = ", ".join(f"{role} {count:.0f}" for role, count in counts.items())
    work.say(f"{work.short_name(run)}: answers learned: {shown}")
    for role in (role for role, count in counts.items() if not count):
        work.say(
            f"warning: no answer of the {role} has a reward of [consolidate] keep ="
            f" {work.spec.consolidate.keep:g}, so the model may unlearn this role; `proofloop runs"
            f" show {run.name}-{role}` counts its answers"
        )
    return {f"answers of the {role}": count for role, count in counts.items()}


def _answers(
    work: Work, stage: Stage, role: ModelRole, served: Served
) -> tuple[RunSpec, list[GivenCase]]:
    """The run of a role's answers to learn from, and its cases; half of a judge's are about flawed
    things.
    """
    spec, wanted, metas = work.spec, work.spec.consolidate, work.spec.generator.metas
    name, rng = f"{stage.name}-{role}", work.rng(f"{stage.name}/{role}")
    kept = {"keep_tokens": True}
    if role == "generator":
        first = spec.data.problems + stage.iteration * wanted.prompts
        domains = work.sources.domains(stage.iteration)
        questions = work.sources.questions(wanted.prompts, first=first, domains=domains)
        run = compose.proving_with_judges(spec, name, served, wanted.samples, metas, **kept)
        return run, given_problems(questions)
    if role == "verifier":
        proofs = [*graded_proofs(work, served["generator"]), *labeled_proofs(work, stage.iteration)]
        run = compose.reviewing(spec, name, served, wanted.samples, metas, **kept)
        return run, given_proofs(balanced(proofs, is_flawed, wanted.prompts, rng))
    analyses = sample(graded_analyses(work, served), wanted.prompts, rng)
    run = compose.judging(spec, name, served, wanted.samples, **kept)
    return run, given_analyses(analyses)


def start_of(work: Work, stage: Stage, served: Served) -> str:
    """The model that an iteration continues to train: its own verifier in service, else the
    consolidated model of the iteration before.

    That model counts if it serves any role: it has learnt the work of all roles.
    """
    own, last = (
        keys.run(f"{work.spec.name}-{name}").removesuffix("/")
        for name in (f"{stage.iteration}-", f"{stage.iteration - 1}-consolidate")
    )
    if served["verifier"].startswith(own):
        return served["verifier"]
    found = (version for version in served.values() if version.startswith(f"{last}/"))
    return next(found, served["verifier"])


def gated(work: Work, stage: Stage, role: ModelRole, served: Served, version: str) -> StageManifest:
    """The stage's manifest: the version serves if the gate lets it. That of an ablation never
    serves. Warns of steps that were not taken.
    """
    taken, planned = keys.parse_numbered(version), getattr(work.spec, stage.kind).steps
    if taken and taken.number < planned:
        work.say(
            f"warning: {stage.name}: {taken.number} of {planned} steps were taken; the other"
            " batches had no answer to learn from (see the log: `nothing_to_learn`)"
        )
    report = gate.compare(work, role, version, held_out(work, served["generator"]), served)
    if stage.ablation:
        report = report.model_copy(update={"promoted": False, "ablation": True})
    serves: Served = {role: version} if report.promoted else {}
    return StageManifest(stage=stage.name, version=version, serves=serves, gates=(report,))


def pick(work: Work, stage: Stage, step: int, cases: Sequence[T], count: int) -> list[T]:
    """The cases of a step. An ablation gets the same as the stage it is compared with."""
    return fill(cases, count, work.rng(f"{stage.iteration}-{stage.kind}/{step}"))


def picked(work: Work, stage: Stage, cases: Sequence[T], wanted: GrpoStage) -> list[T]:
    """The cases of all steps of a stage, in order."""
    steps = range(wanted.steps)
    return [case for step in steps for case in pick(work, stage, step, cases, wanted.groups)]
