"""The stages of the curriculum, each from the versions in service to the manifest that it leaves.

Every stage is safe to run again from its beginning: it finds its data, its batches and its steps in
the store.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from proofloop.config.curriculum_file import (
    SAMPLED,
    Consolidate,
    CurriculumSpec,
    Stage,
    StageKind,
    grpo_fields,
)
from proofloop.config.given_files import GradedAnalysis, GradedProof, in_split
from proofloop.config.run_file import RoleSampling
from proofloop.curriculum.status import GateReport, StageManifest
from proofloop.errors import HintedError
from proofloop.runs.model_registry import MANIFEST
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES, ModelRole, Record, Tokens, TrainingSample
from proofloop_trainer.curriculum import gate, labeling
from proofloop_trainer.curriculum.cases import (
    CaseFile,
    balanced,
    draw_analyses,
    draw_proofs,
    grade_analyses,
    grade_proofs,
)
from proofloop_trainer.curriculum.rollouts import Judges, meta_verify, prove, verify
from proofloop_trainer.curriculum.training import train
from proofloop_trainer.curriculum.work import TRAIN, Work
from proofloop_trainer.export import dtype_of
from proofloop_trainer.fine_tuning.supervised import Schedule, answer_to_learn, fine_tune
from proofloop_trainer.grpo.settings import GrpoSettings, grpo_settings
from proofloop_trainer.steps import publish_made

Served = dict[ModelRole, str]
T = TypeVar("T")


def cold_start(work: Work, stage: Stage, served: Served) -> StageManifest:
    """Supervised steps on demonstrations; the model serves every role."""
    from proofloop_trainer.nano.pretrain import cold_start as demonstrate

    wanted = work.spec.cold_start
    version = _made(
        work,
        stage,
        served["verifier"],
        wanted.steps,
        lambda folder: demonstrate(
            work.folder(served["verifier"]),
            folder,
            seed=work.spec.seed,
            steps=wanted.steps,
            batch=wanted.batch,
            learning_rate=wanted.learning_rate,
            before_step=work.check_stopping,
        ),
    )
    return StageManifest(
        stage=stage.name, version=version, serves=dict.fromkeys(MODEL_ROLES, version)
    )


def verifier(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * R_score on D_v, eq. (2)."""
    wanted, start = work.spec.verifier, served["verifier"]
    cases = graded_proofs(work, served["generator"])
    judges = Judges(None, None, work.pack)

    def rollout(step: int, version: str) -> list[TrainingSample]:
        chosen = _pick(work, stage, step, cases, wanted.groups)
        return verify(
            chosen, work.asker("verifier", version, stage.name, step), wanted.samples, judges
        )

    version = train(
        work,
        stage.name,
        "verifier",
        start,
        wanted.steps,
        settings_of(work.spec, stage.kind),
        rollout,
    )
    return _gated(work, stage, "verifier", start, version, served)


def meta_verifier(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * R_score on D_mv, whose analyses come from the cold start's and the newest
    verifier.
    """
    wanted, start = work.spec.meta_verifier, served["meta_verifier"]
    cases = graded_analyses(work, served)

    def rollout(step: int, version: str) -> list[TrainingSample]:
        chosen = _pick(work, stage, step, cases, wanted.groups)
        return meta_verify(
            chosen,
            work.asker("meta_verifier", version, stage.name, step),
            wanted.samples,
            work.pack,
        )

    version = train(
        work,
        stage.name,
        "meta_verifier",
        start,
        wanted.steps,
        settings_of(work.spec, stage.kind),
        rollout,
    )
    return _gated(work, stage, "meta_verifier", start, version, served)


def enhanced(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * R_score * R_meta on D_v together with D_mv, eq. (3); the meta-verifier is
    refreshed on the way.

    Up to half of the proofs are those that got labels in earlier iterations. The ablation no-meta
    takes as many steps with as many prompts of D_v and nothing of D_mv.
    """
    wanted, start = work.spec.enhanced, start_of(work.spec.name, stage, served)
    proofs = graded_proofs(work, served["generator"])
    labeled = _evenly(work, labeling.labeled_proofs(work, stage.iteration - 1))
    is_plain = stage.ablation == "no-meta"
    refreshed = Refreshed(work, stage, served, proofs)

    def rollout(step: int, version: str) -> list[TrainingSample]:
        most = wanted.groups - wanted.meta_groups
        new = _pick(work, stage, step, labeled, most // 2)
        chosen = new + _pick(work, stage, step, proofs, most - len(new))
        meta, analyses = (None, []) if is_plain else refreshed.at(step, version)
        judge = work.asker("meta_verifier", meta, stage.name, step) if meta else None
        asker = work.asker("verifier", version, stage.name, step)
        samples = verify(chosen, asker, wanted.samples, Judges(None, judge, work.pack))
        some = _pick(work, stage, step, analyses, wanted.meta_groups)
        meta_asker = work.asker("meta_verifier", version, stage.name, step)
        return samples + (meta_verify(some, meta_asker, wanted.samples, work.pack) if some else [])

    # The cold start names fewer false flaws than the verifier trained by score alone: pull back to
    # it.
    reference = served["generator"] if stage.iteration == 1 else start
    settings = settings_of(work.spec, stage.kind)
    version = train(work, stage.name, "verifier", start, wanted.steps, settings, rollout, reference)
    manifest = _gated(work, stage, "verifier", served["verifier"], version, served)
    if is_plain:
        return manifest
    before, meta = served["meta_verifier"], refreshed.at(wanted.steps - 1, version)[0]
    if meta == before:
        return manifest
    report = gate.compare(
        work, "meta_verifier", before, meta, gate.held_out(work, served["generator"]), served
    )
    serves: Served = {"meta_verifier": meta} if report.promoted else {}
    return manifest.model_copy(
        update={"serves": {**manifest.serves, **serves}, "gates": (*manifest.gates, report)}
    )


class Refreshed:
    """The meta-verifier and D_mv of an enhanced stage: new analyses, and steps on them, every
    `refresh` steps.

    A meta-verifier that stands still is outwitted by the verifier that it rewards. It does stand
    still where people graded files: they are not there to grade what is new.
    """

    def __init__(self, work: Work, stage: Stage, served: Served, proofs: list[GradedProof]) -> None:
        self._work, self._stage, self._served, self._proofs = work, stage, served, proofs
        self._meta = served["meta_verifier"]
        self._analyses = graded_analyses(work, served)
        self._round = 0

    def at(self, step: int, version: str) -> tuple[str, list[GradedAnalysis]]:
        """The meta-verifier and D_mv of a step of the verifier's."""
        every = self._work.spec.enhanced.refresh
        while self._work.grades is None and self._round < step // every:
            self._round += 1
            at_refresh = keys.model(self._work.spec.name, self._stage.name, self._round * every)
            self._refresh(f"{self._stage.name}-refresh-{self._round}", at_refresh)
        return self._meta, self._analyses

    def _refresh(self, name: str, version: str) -> None:
        work, wanted = self._work, self._work.spec.meta_verifier
        new = work.cases(name, lambda: self._draw(name, version)).analyses
        old = _some(work, name, self._analyses, len(new))
        self._analyses = [*new, *old]

        def rollout(step: int, meta: str) -> list[TrainingSample]:
            chosen = _some(work, f"{name}/{step}", self._analyses, wanted.groups)
            return meta_verify(
                chosen, work.asker("meta_verifier", meta, name, step), wanted.samples, work.pack
            )

        steps = work.spec.enhanced.refresh_steps
        settings = settings_of(work.spec, "meta_verifier", steps)
        self._meta = train(work, name, "meta_verifier", self._meta, steps, settings, rollout)
        work.store.delete_prefix(keys.checkpoints(work.spec.name, name))  # no step goes on from it

    def _draw(self, name: str, version: str) -> CaseFile:
        work, most = self._work, self._work.spec.data.analyses // 2
        proofs = _some(work, name, self._proofs, most // 2)
        drawn = draw_analyses(
            proofs,
            work.asker("verifier", version, name),
            work.pack,
            work.spec.data.analysis_temperatures,
        )
        graded = grade_analyses(drawn, work.domain)
        return CaseFile(
            analyses=tuple(balanced(graded, lambda case: case.quality, most, work.rng(name)))
        )


def generator(work: Work, stage: Stage, served: Served) -> StageManifest:
    """R_format * (alpha R_Y + beta R_Z) from the verifier's checkpoint, eq. (5); judged by the
    learned judges alone.
    """
    wanted, start = work.spec.generator, start_of(work.spec.name, stage, served)
    is_plain = stage.ablation == "no-self"
    alpha, beta = (wanted.alpha + wanted.beta, 0.0) if is_plain else (wanted.alpha, wanted.beta)

    def rollout(step: int, version: str) -> list[TrainingSample]:
        first = work.rng(stage.iteration, "problems", step).randrange(2**40)
        problems = work.questions(wanted.groups, first=first, domains=work.domains(stage.iteration))
        asker, judges = (
            work.asker("generator", version, stage.name, step),
            work.judges(served, stage.name, step),
        )
        return prove(problems, asker, wanted.samples, judges, alpha=alpha, beta=beta)

    version = train(
        work,
        stage.name,
        "generator",
        start,
        wanted.steps,
        settings_of(work.spec, stage.kind),
        rollout,
    )
    return _gated(work, stage, "generator", served["generator"], version, served)


def label(work: Work, stage: Stage, served: Served) -> StageManifest:
    """Labels for the generator's proofs of new problems, by the learned judges and the labeling
    rule alone.
    """
    labeled = labeling.label_proofs(work, stage.iteration, served)
    counts = {
        f"score {score:g}": float(sum(case.score == score for case in labeled))
        for score in (0.0, 0.5, 1.0)
    }
    return StageManifest(stage=stage.name, figures=counts)


def consolidate(work: Work, stage: Stage, served: Served) -> StageManifest:
    """Rejection fine-tuning: one model learns what every role's model answered best. It starts from
    the generator's.

    Where no analyses are graded nothing can say how well it judges critiques, and the old
    meta-verifier goes on.
    """
    wanted, start = work.spec.consolidate, served["generator"]
    best = _best_answers(work, stage, served, wanted)
    tokens = best.tokens
    if best.kept:
        _say_kept(work, stage, best.kept)

    def make(folder: Path) -> None:
        learnt, schedule = [answer_to_learn(each) for each in tokens], Schedule.of(wanted)
        seed, check_stopping = work.spec.seed, work.check_stopping
        fine_tune(work.weights(start), folder, learnt, schedule, seed, check_stopping)

    version = _made(work, stage, start, len(tokens), make)
    cases = gate.held_out(work, served["generator"])
    compared = [role for role in MODEL_ROLES if cases.analyses or role != "meta_verifier"]
    gates = {
        role: gate.compare(work, role, served[role], version, cases, served) for role in compared
    }
    serves: Served = {role: version for role, report in gates.items() if report.promoted}
    return StageManifest(
        stage=stage.name,
        version=version,
        serves=serves,
        gates=tuple(gates.values()),
        figures={
            "answers": float(len(tokens)),
            **{f"answers {role}": float(kept) for role, kept in best.kept.items()},
        },
    )


class BestAnswers(Record):
    """What a consolidation learns. `kept`: how many are of each role that it is to learn."""

    tokens: list[Tokens]
    kept: dict[ModelRole, int] = Field(default_factory=dict)


def _best_answers(work: Work, stage: Stage, served: Served, wanted: Consolidate) -> BestAnswers:
    """Of every role; where no analyses are graded there is nothing to ask a meta-verifier about."""

    def ask() -> BestAnswers:
        roles = [
            role for role in MODEL_ROLES if role != "meta_verifier" or graded_analyses(work, served)
        ]
        asked = {role: _asked(work, stage, role, served, wanted) for role in roles}
        best = {
            role: [each for each in samples if each.reward >= wanted.keep]
            for role, samples in asked.items()
        }
        if not any(best.values()):
            most = max((each.reward for samples in asked.values() for each in samples), default=0.0)
            raise HintedError(
                f"stage {stage.name}: no answer reaches [consolidate] keep = {wanted.keep:g}; the"
                f" best reward is {most:g}",
                "lower keep in the file and run the command again; it continues with this stage",
            )
        return BestAnswers(
            tokens=[sample.tokens for samples in best.values() for sample in samples],
            kept={role: len(samples) for role, samples in best.items()},
        )

    return work.once(stage.name, BestAnswers, ask)


def _say_kept(work: Work, stage: Stage, kept: dict[ModelRole, int]) -> None:
    """Print how many answers each role has. A role without a good answer is not an error: the gate
    keeps the old model if the new one is worse.
    """
    work.say(
        f"{stage.name}: learns from "
        + ", ".join(f"{count} answers of the {role}" for role, count in kept.items())
    )
    for role in (role for role, count in kept.items() if not count):
        work.say(
            f"warning: {stage.name}: no answer of the {role} reaches [consolidate] keep ="
            f" {work.spec.consolidate.keep}: the new model learns nothing for this role. It serves"
            " the role only if the gate finds it not worse"
        )


def _asked(
    work: Work, stage: Stage, role: ModelRole, served: Served, wanted: Consolidate
) -> list[TrainingSample]:
    """The role's answers with what they earned; of a judge's, half about flawed things."""
    asker, name = work.asker(role, served[role], stage.name), f"{stage.name}/{role}"
    judges = work.judges(served, stage.name)
    if role == "generator":
        first = work.spec.data.problems + stage.iteration * wanted.prompts
        questions = work.questions(
            wanted.prompts, first=first, domains=work.domains(stage.iteration)
        )
        return prove(
            questions,
            asker,
            wanted.samples,
            judges,
            alpha=work.spec.generator.alpha,
            beta=work.spec.generator.beta,
        )
    if role == "verifier":
        proofs = [
            *graded_proofs(work, served["generator"]),
            *labeling.labeled_proofs(work, stage.iteration),
        ]
        chosen = balanced(proofs, lambda case: case.score < 1, wanted.prompts, work.rng(name))
        return verify(chosen, asker, wanted.samples, judges)
    analyses = _some(work, name, graded_analyses(work, served), wanted.prompts)
    return meta_verify(analyses, asker, wanted.samples, work.pack)


def graded_proofs(work: Work, version: str) -> list[GradedProof]:
    """D_v: proofs of the first generator, or of a file, graded by the experts; as many flawed as
    sound.
    """

    def draw() -> CaseFile:
        data = work.spec.data
        if work.grades:
            proofs = in_split(work.grades.proofs, TRAIN)
        else:
            asker = work.asker("generator", version, "D_v")
            drawn = draw_proofs(work.questions(data.problems), asker, work.pack, data.temperatures)
            proofs = grade_proofs(drawn, work.domain)
        return CaseFile(
            proofs=tuple(
                balanced(proofs, lambda proof: proof.score < 1, data.proofs, work.rng("D_v"))
            )
        )

    return list(work.cases("D_v", draw).proofs)


def graded_analyses(work: Work, served: Served) -> list[GradedAnalysis]:
    """D_mv: analyses of the first model and of the verifier then, or of a file; graded by the
    experts.
    """

    def draw() -> CaseFile:
        most = work.spec.data.analyses
        graded = (
            in_split(work.grades.analyses, TRAIN)
            if work.grades
            else _grade_drawn(work, served, most // 3)
        )
        return CaseFile(
            analyses=tuple(balanced(graded, lambda case: case.quality, most, work.rng("D_mv")))
        )

    return list(work.cases("D_mv", draw).analyses)


def _grade_drawn(work: Work, served: Served, proofs_each: int) -> list[GradedAnalysis]:
    proofs = graded_proofs(work, served["generator"])
    drawn = [
        pair
        for version in dict.fromkeys((served["meta_verifier"], served["verifier"]))
        for pair in draw_analyses(
            _some(work, f"D_mv/{version}", proofs, proofs_each),
            work.asker("verifier", version, "D_mv"),
            work.pack,
            work.spec.data.analysis_temperatures,
        )
    ]
    return grade_analyses(drawn, work.domain)


def _evenly(work: Work, proofs: list[GradedProof]) -> list[GradedProof]:
    """As many flawed proofs as sound ones: a judge that sees mostly good proofs learns to nod."""
    flawed = sum(proof.score < 1 for proof in proofs)
    most = 2 * min(flawed, len(proofs) - flawed)
    return balanced(proofs, lambda proof: proof.score < 1, most, work.rng("evenly", len(proofs)))


def _pick(work: Work, stage: Stage, step: int, cases: list[T], most: int) -> list[T]:
    """The cases of a step. An ablation sees the same as what it is compared with."""
    return _some(work, f"{stage.iteration}-{stage.kind}/{step}", cases, most)


def _some(work: Work, name: str, cases: list[T], most: int) -> list[T]:
    return work.rng(name).sample(cases, min(most, len(cases)))


def settings_of(spec: CurriculumSpec, kind: StageKind, steps: int | None = None) -> GrpoSettings:
    """The GRPO settings of a kind of stage: its step size falls until its end, unless said. Raises
    ConfigError.
    """
    sampled: RoleSampling = getattr(spec.sampling, SAMPLED[kind])
    return grpo_settings(grpo_fields(spec, kind, steps), kind, f"curriculum {spec.name!r}", sampled)


def start_of(run: str, stage: Stage, served: Served) -> str:
    """What an iteration trains on: its own verifier in service, else the model that consolidates
    the one before.

    Where the gate let that serve another role only, what the generator learnt is in it all the
    same.
    """
    own, last = (
        f"{keys.all_models(run)}{stage.iteration}-",
        keys.models(run, f"{stage.iteration - 1}-consolidate"),
    )
    verifier = served["verifier"]
    if verifier.startswith(own):
        return verifier
    return next((version for version in served.values() if version.startswith(last)), verifier)


def _gated(
    work: Work, stage: Stage, role: ModelRole, before: str, version: str, served: Served
) -> StageManifest:
    """The stage's manifest: the version serves if the gate lets it, and never if the stage is an
    ablation.
    """
    report: GateReport = gate.compare(
        work, role, before, version, gate.held_out(work, served["generator"]), served
    )
    serves: Served = {role: version} if report.promoted and stage.ablation is None else {}
    return StageManifest(stage=stage.name, version=version, serves=serves, gates=(report,))


def _made(work: Work, stage: Stage, start: str, steps: int, make: Callable[[Path], object]) -> str:
    """The version of a stage without steps of its own to resume, as precise as `start`: made whole,
    or not at all.
    """
    version = keys.model(work.spec.name, stage.name, steps)
    if not work.store.exists(f"{version}/{MANIFEST}"):
        publish_made(work.store, version, steps, make, dtype_of(work.folder(start)))
    return version
