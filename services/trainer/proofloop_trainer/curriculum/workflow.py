"""`proofloop iterate`: the stages one after the other, each once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from proofloop.config.curriculum_file import SAMPLED, CurriculumSpec, StageKind
from proofloop.config.given_files import (
    GradedAnalysis,
    GradedProof,
    in_split,
    read_graded,
)
from proofloop.config.problem_file import SPLIT_HINT, ProblemFile
from proofloop.config.settings import load_settings
from proofloop.curriculum.status import (
    GateReport,
    StageManifest,
    changed,
    finish,
    freeze,
    manifests,
    serving_before,
)
from proofloop.errors import ConfigError
from proofloop.method.domains import Domain, load_domain, need_checker
from proofloop.runs.model_registry import named_folder
from proofloop.schema import keys
from proofloop.store import LocalStore, Store
from proofloop.worker.engine_pool import Engines
from proofloop_trainer.curriculum import measuring, stages
from proofloop_trainer.curriculum.work import TEST, TRAIN, VALIDATION, Grades, Work
from proofloop_trainer.grpo.policy import require_model

STAGES: dict[StageKind, Callable[..., StageManifest]] = {
    "cold_start": stages.cold_start,
    "verifier": stages.verifier,
    "meta_verifier": stages.meta_verifier,
    "enhanced": stages.enhanced,
    "generator": stages.generator,
    "label": stages.label,
    "consolidate": stages.consolidate,
    "measure": measuring.measure,
}


def iterate(
    spec: CurriculumSpec,
    store: Store,
    engines: Engines,
    stopping: threading.Event,
    say: Callable[[str], None],
) -> dict[str, StageManifest]:
    """Do every stage that has no manifest yet; the manifests of all.

    Raises Interrupted when asked to stop, ConfigError where another process works on it: in a store
    that is a folder.
    """
    sources = check(spec)
    with store.only_here(spec.name) if isinstance(store, LocalStore) else nullcontext():
        return _iterate(spec, store, engines, sources, stopping, say)


def _iterate(
    spec: CurriculumSpec,
    store: Store,
    engines: Engines,
    sources: tuple[Domain, Domain | None, Grades | None],
    stopping: threading.Event,
    say: Callable[[str], None],
) -> dict[str, StageManifest]:
    pack = freeze(store, spec)
    if change := changed(store, spec):
        say(f"changed since the curriculum started: {change}")
    work = Work(
        spec, store, engines, *sources, pack, load_settings().cache, stopping, say, stage=""
    )
    done = manifests(store, spec)
    # The process that wrote the last manifest may have been killed before its clean-up.
    drop_unused(spec, store, done)
    if len(done) < len(spec.stages):
        engines.check(work.run_spec)
    for number, stage in enumerate(spec.stages, start=1):
        if stage.name in done:
            continue
        work.check_stopping()
        say(f"stage {number}/{len(spec.stages)}: {stage.name}")
        began, cpu_began = time.monotonic(), time.process_time()
        # An ablation begins where that began.
        served = serving_before(spec, done, f"{stage.iteration}-{stage.kind}")
        manifest = STAGES[stage.kind](replace(work, stage=stage.name), stage, served)
        taken = manifest.model_copy(
            update={
                "seconds": time.monotonic() - began,
                "cpu_seconds": time.process_time() - cpu_began,
            }
        )
        done[stage.name] = finish(store, spec, taken)
        drop_unused(spec, store, done)
        for report in manifest.gates:
            say(f"{stage.name}: {_in_words(report)}")
    return done


def _in_words(report: GateReport) -> str:
    decision = "promoted" if report.promoted else "not promoted"
    is_blind = not (report.before or report.after)
    reason = ": no answer was right before or after" if is_blind else ""
    return f"{report.figure} {report.before:.3f} -> {report.after:.3f}, {decision}{reason}"


def drop_unused(spec: CurriculumSpec, store: Store, done: dict[str, StageManifest]) -> None:
    """Delete what finished stages made on their way: answers, checkpoints, versions that are no
    result of theirs.
    """
    answers = keys.all_answers(spec.name)
    answered = {keys.first_below(answers, key) for key in store.list(answers)}
    for stage in answered & done.keys():
        store.delete_prefix(keys.answers(spec.name, stage))
    kept = {
        version
        for manifest in done.values()
        for version in (manifest.version, *manifest.serves.values())
    }
    kept |= {
        keys.weights(version) for manifest in done.values() for version in manifest.serves.values()
    }
    for prefix in (
        keys.all_checkpoints(spec.name),
        keys.all_models(spec.name),
        keys.all_weights(spec.name),
    ):
        for folder in {keys.folder_of(key) for key in store.list(prefix)}:
            stage = keys.first_below(prefix, folder).partition("-refresh-")[0]
            if stage in done and folder not in kept:
                store.delete_prefix(f"{folder}/")


def check(spec: CurriculumSpec) -> tuple[Domain, Domain | None, Grades | None]:
    """The source of problems, the source of hard problems, and people's grades.

    Raises ConfigError for a bad or too small file, a missing model at `start`, or a bad setting of
    any stage, hours before the stage would need it.
    """
    for kind in SAMPLED:
        stages.settings_of(spec, kind)
    if not spec.start.startswith("runs/"):
        require_model(named_folder(spec.start, spec.base))
    if spec.files is None:
        domain, harder = load_domain(spec.domain), load_domain(spec.harder) if spec.harder else None
        need_checker(domain)
        return domain, harder, None
    problems = ProblemFile(spec.base / spec.files.problems)
    proofs = read_graded(spec.base / spec.files.proofs, GradedProof)
    analyses = (
        read_graded(spec.base / spec.files.analyses, GradedAnalysis) if spec.files.analyses else ()
    )
    for key, wanted, split in (
        ("[labels] problems", spec.labels.problems, TRAIN),
        ("measured", spec.measured, TEST),
    ):
        if wanted > (count := problems.count(split)):
            where = (
                f"{key} = {wanted}: {spec.files.problems} has {count} problems in the {split} split"
            )
            raise ConfigError(where, f"set {key} to {count} or less, or {SPLIT_HINT}")
    for split in (TRAIN, VALIDATION, *([TEST] if spec.measured else [])):
        scores = {row.score == 1 for row in in_split(proofs, split)}
        if len(scores) < 2:
            raise ConfigError(
                f"{spec.files.proofs} needs sound and flawed proofs in the {split} split",
                SPLIT_HINT,
            )
        if spec.files.analyses and not in_split(analyses, split):
            raise ConfigError(f"{spec.files.analyses} has no row in the {split} split", SPLIT_HINT)
    return problems, None, Grades(proofs, analyses)
