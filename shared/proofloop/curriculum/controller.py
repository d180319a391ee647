"""`proofloop iterate`: the stages one after the other, each once.

The controller creates runs, waits for them and decides. It asks no model and trains none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from proofloop.bus import open_bus, open_dead_letters
from proofloop.config.curriculum_file import SAMPLED, CurriculumSpec, Stage, StageKind
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.curriculum import compose, measuring, stages
from proofloop.curriculum.compose import Served
from proofloop.curriculum.enhanced import enhanced
from proofloop.curriculum.sources import Sources, open_sources
from proofloop.curriculum.status import (
    GateReport,
    StageManifest,
    changed,
    drop_unused,
    find_curriculum,
    finish,
    freeze,
    manifests,
    serving_before,
)
from proofloop.curriculum.work import Drive, Work
from proofloop.engine import find_engine
from proofloop.errors import ConfigError
from proofloop.pipeline.driver import Report
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.pipeline.services import ServicesPipeline
from proofloop.runs.create import check_sources, check_version
from proofloop.runs.model_registry import last_served, promote_version
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.records import PIPELINE_ROLES, ModelRole
from proofloop.store import Store, lease
from proofloop.store.model_folders import named_folder, require_model
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import load_role

STAGES: dict[StageKind, Callable[[Work, Stage, Served], StageManifest]] = {
    "cold_start": stages.cold_start,
    "verifier": stages.verifier,
    "meta_verifier": stages.meta_verifier,
    "enhanced": enhanced,
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
    *,
    local: bool = False,
) -> dict[str, StageManifest]:
    """Do every stage that has no manifest yet: on services if a broker is set, else (or with
    `local`) in this process. Returns the manifests of all.

    Raises Interrupted on a requested stop, ConfigError if another process works on it.
    """
    is_here = local or load_settings().broker is None
    sources = check(spec) if is_here else open_sources(spec)
    with lease.held(store, spec.name, f"curriculum {spec.name!r}") as held:
        first = compose.example_of(spec, "verifier")
        # Before anything is frozen: a wrong name or address can still be corrected.
        if not find_curriculum(store, spec.name):
            _check_stored(store, spec)
        if is_here and len(manifests(store, spec)) < len(spec.stages):
            engines.check(first, stopping=stopping)
        pack = freeze(store, spec)
        if change := changed(store, spec):
            say(f"changed since the curriculum started: {change}")
        # The process that wrote the last manifest may have been killed before its clean-up.
        drop_unused(store, spec)
        driving = _here(store, engines, first, stopping) if is_here else _services(store, stopping)
        with driving as drive:
            work = Work(spec, store, sources, pack, drive, held, stopping, say)
            return _iterate(work, partial(_prepare, engines, first, is_here))


@contextmanager
def _here(
    store: Store, engines: Engines, first: RunSpec, stopping: threading.Event
) -> Iterator[Drive]:
    """Drives runs with all roles in this process. All of them share the engine of `first`."""
    engine = engines.of(first, "verifier")

    def drive(spec: RunSpec, report: Report) -> RunProgress:
        with EmbeddedPipeline(store, engines, spec, stopping=stopping, engine=engine) as pipeline:
            return pipeline.run(report)

    yield drive


@contextmanager
def _services(store: Store, stopping: threading.Event) -> Iterator[Drive]:
    """Drives runs on the services of the broker."""
    settings = load_settings()
    letters = open_dead_letters(settings)
    bus = open_bus(settings, roles=[*PIPELINE_ROLES, "trainer"])

    def drive(spec: RunSpec, report: Report) -> RunProgress:
        with ServicesPipeline(store, bus, letters, spec, stopping=stopping) as pipeline:
            return pipeline.run(report)

    try:
        yield drive
    finally:
        bus.close(grace_s=settings.grace_s)


def _prepare(
    engines: Engines, first: RunSpec, is_here: bool, role: ModelRole, version: str
) -> None:
    """Load a version before it serves, where this process reaches the engine that will serve it."""
    info = find_engine(first.engine.of(role).kind)
    if is_here or (info and info.on_server):
        engines.prepare(first, role, version)


def _iterate(work: Work, prepare: Callable[[ModelRole, str], None]) -> dict[str, StageManifest]:
    spec, store = work.spec, work.store
    done = manifests(store, spec)
    for number, stage in enumerate(spec.stages, start=1):
        if stage.name in done:
            continue
        work.check()
        work.say(f"stage {number}/{len(spec.stages)}: {stage.name}")
        manifest = _timed(work, stage, done)
        for role, version in manifest.serves.items():
            if last_served(store, spec.name, role) != version:
                promote_version(store, spec.name, role, version, partial(prepare, role))
        done[stage.name] = finish(store, spec, manifest)
        drop_unused(store, spec)
        for report in manifest.gates:
            work.say(f"{stage.name}: {_in_words(report)}")
    return done


def _timed(work: Work, stage: Stage, done: dict[str, StageManifest]) -> StageManifest:
    """The manifest of a stage, done now. An ablation begins where the stage it is compared with
    began.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    served = serving_before(work.spec, done, f"{stage.iteration}-{stage.kind}")
    manifest = STAGES[stage.kind](work, stage, served)
    taken = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu_began}
    return manifest.model_copy(update=taken)


def _in_words(report: GateReport) -> str:
    is_blind = not (report.before or report.after)
    reason = ": no answer was right before or after" if is_blind else ""
    return f"{report.figure} {report.before:.3f} -> {report.after:.3f}, {report.decision}{reason}"


def check(spec: CurriculumSpec) -> Sources:
    """The sources of problems and grades. Raises ConfigError for a bad or too small file, or a bad
    setting of any stage, hours before the stage would need it.
    """
    sources = open_sources(spec)
    if not keys.is_version(spec.start):
        require_model(named_folder(spec.start, spec.base))
    for stage in spec.stages:
        if stage.kind in SAMPLED:
            _check_training(spec, stage.kind)
        elif stage.kind == "cold_start":
            load_role("trainer").check(compose.cold_start(spec, stage.name))
    return sources


def _check_stored(store: Store, spec: CurriculumSpec) -> None:
    """Raise ConfigError if the store lacks a version or a run that the curriculum begins with."""
    check_version(store, "start", spec.start)
    if spec.stages[0].kind == "cold_start":
        check_sources(store, compose.cold_start(spec, spec.stages[0].name))


def _check_training(spec: CurriculumSpec, kind: StageKind) -> None:
    """Raise ConfigError for GRPO settings that the trainer does not know."""
    run = compose.example_of(spec, kind)
    try:
        load_role("trainer").check(run)
    except ConfigError as error:
        [role] = run.training.roles
        where = f"[training.{role}.settings] of run {run.name!r}"
        problem = error.problem.replace(where, f"[{kind}.settings] of curriculum {spec.name!r}")
        raise ConfigError(problem, error.hint) from error
