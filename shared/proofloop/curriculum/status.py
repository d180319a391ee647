"""A curriculum in the store: its frozen file, its stages' manifests, its progress and figures, and
the versions in service.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import takewhile
from statistics import fmean

from pydantic import Field

from proofloop.config.curriculum_file import (
    ColdStart,
    CurriculumSpec,
    Files,
    GrpoStage,
    Stage,
    changeable,
)
from proofloop.config.frozen import first_difference, read_frozen
from proofloop.errors import ConfigError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.runs.figures import Figure
from proofloop.runs.planned import supervised_steps
from proofloop.schema import keys
from proofloop.schema.ids import is_id
from proofloop.schema.records import MODEL_ROLES, ModelRole, Record, TrainingStep
from proofloop.store import Store, find_record, get_record, put_record, records_below

HOUR_S = 3600


class GateReport(Record):
    """The paired difference of a stage's figure on the validation split, after minus before. An
    ablation is compared, and never promoted.
    """

    figure: str
    before: float
    after: float
    difference: float
    noise: float
    promoted: bool
    ablation: bool = False

    @property
    def decision(self) -> str:
        if self.ablation:
            return "an ablation never serves"
        return "promoted" if self.promoted else "not promoted"


class StageManifest(Record):
    """The record of a finished stage: its new version, the roles that this version serves, and the
    time it took.

    `seconds` and `cpu_seconds` count only the process that finished the stage, not interrupted
    ones.
    """

    stage: str
    version: str | None = None
    serves: dict[ModelRole, str] = Field(default_factory=dict)
    gates: tuple[GateReport, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class FileDigests(Record):
    """The SHA-256 of each file of [files] by path. Changed rows would change the problems of each
    step.
    """

    files: dict[str, str]


def freeze(store: Store, spec: CurriculumSpec) -> PromptPack:
    """Store the curriculum, the digests of its files and its prompts, unless they are stored
    already. Returns the prompts.

    Raises ConfigError if the stored curriculum or a file differs.
    """
    body = spec.model_dump_json(exclude={"base"}).encode()
    is_new = store.put_if_absent(keys.curriculum(spec.name), body, durable=True)
    begun = spec if is_new else _read(store, spec.name)
    if change := first_difference(spec, begun, apart_from=changeable(spec)):
        raise ConfigError(
            f"curriculum {spec.name!r} was started with different settings: {change}",
            "undo the change, or start a curriculum with a different name",
        )
    if spec.files:
        _freeze_files(store, spec, spec.files)
    key = keys.prompts(spec.name)
    kept = find_record(store, key, PromptPack)
    return kept or put_record(store, key, load_pack(spec.prompts, spec.base), durable=True)


def changed(store: Store, spec: CurriculumSpec) -> str | None:
    """The first key that has changed since the curriculum was started, with both values."""
    begun = _read(store, spec.name)
    change = first_difference(spec, begun, apart_from={"base": True})
    return str(change) if change else None


def _freeze_files(store: Store, spec: CurriculumSpec, files: Files) -> None:
    paths = [path for path in (files.problems, files.proofs, files.analyses) if path]
    now = {str(path): hashlib.sha256((spec.base / path).read_bytes()).hexdigest() for path in paths}
    begun = put_record(
        store, keys.curriculum_files(spec.name), FileDigests(files=now), durable=True
    ).files
    for path, digest in now.items():
        if begun[path] != digest:
            raise ConfigError(
                f"{path} has changed since curriculum {spec.name!r} was started: its SHA-256 is"
                f" {digest[:12]}, and was {begun[path][:12]}",
                "restore the old file, or start a curriculum with a different name",
            )


def find_curriculum(store: Store, name: str) -> CurriculumSpec | None:
    """The curriculum of this name, or None. Raises CorruptObject."""
    return _read(store, name) if is_id(name) and store.exists(keys.curriculum(name)) else None


def _read(store: Store, name: str) -> CurriculumSpec:
    """The stored curriculum. Raises NotFound, CorruptObject."""
    key = keys.curriculum(name)
    return read_frozen(store.get(key), CurriculumSpec, key)


def manifests(store: Store, spec: CurriculumSpec) -> dict[str, StageManifest]:
    """The manifests of the finished stages by name, in the order of the stages."""
    found: dict[str, StageManifest] = {}
    for stage in spec.stages:
        manifest = find_record(store, keys.stage(spec.name, stage.name), StageManifest)
        if manifest is not None:
            found[stage.name] = manifest
    return found


def finish(store: Store, spec: CurriculumSpec, manifest: StageManifest) -> StageManifest:
    """Write a stage's manifest, which marks the stage as finished."""
    return put_record(store, keys.stage(spec.name, manifest.stage), manifest, durable=True)


class _RunOf(Record):
    """Marks a run as one of a curriculum's."""

    curriculum: str


def add_run(store: Store, name: str, run: str) -> None:
    """Count a run among the curriculum's."""
    put_record(store, keys.curriculum_run(name, run), _RunOf(curriculum=name))


def runs_of(store: Store, name: str) -> list[str]:
    """The names of the curriculum's runs."""
    return [keys.name_of(key) for key in store.list(keys.curriculum_runs(name))]


def stage_of(spec: CurriculumSpec, run: str) -> str | None:
    """The stage that a run of the curriculum belongs to; None for data sets and gates."""
    name = run.removeprefix(f"{spec.name}-")
    found = [stage.name for stage in spec.stages if f"{name}-".startswith(f"{stage.name}-")]
    return max(found, key=len, default=None)  # 1-enhanced-no-meta is not of 1-enhanced


def training_steps(store: Store, spec: CurriculumSpec) -> dict[str, list[TrainingStep]]:
    """The training steps of each run that trains by rewards. The keys are the runs' names without
    the curriculum's name.
    """
    found: dict[str, list[TrainingStep]] = {}
    for run in runs_of(store, spec.name):
        if steps := list(records_below(store, keys.all_steps(run), TrainingStep)):
            found[run.removeprefix(f"{spec.name}-")] = steps
    return found


def drop_unused(store: Store, spec: CurriculumSpec) -> None:
    """Delete the checkpoints of finished stages, and those versions that are not their results."""
    done = manifests(store, spec)
    kept = {
        version
        for manifest in done.values()
        for version in (manifest.version, *manifest.serves.values())
    }
    kept |= {
        keys.weights(version) for manifest in done.values() for version in manifest.serves.values()
    }
    for run in runs_of(store, spec.name):
        if stage_of(spec, run) in done:
            _drop(store, run, kept)


def _drop(store: Store, run: str, kept: set[str | None]) -> None:
    for prefix in (keys.all_checkpoints(run), keys.all_models(run), keys.all_weights(run)):
        for version in {keys.version_of(key) for key in store.list(prefix)} - kept:
            store.delete_prefix(f"{version}/")


class Status(Record):
    """The progress of a curriculum.

    `running`: the first unfinished stage, with its `steps` so far and its `planned_steps`. `next`:
      the stage after it. `seconds_left`: an estimate from the finished stages, without measuring;
      None before the first stage has ended, and while the curriculum is measured.
    `trained_tokens`: tokens of the answers in GRPO steps, without those of judges, gates and
      labels. `cost`: the hours of the finished stages times `per_engine_hour`;
      None without this price.
    """

    done: int
    stages: int
    running: str | None
    steps: int
    planned_steps: int
    next: str | None
    seconds: float
    seconds_left: float | None
    trained_tokens: int
    cost: float | None


def read_status(store: Store, spec: CurriculumSpec) -> Status:
    """Read the progress of a curriculum from the store."""
    finished = manifests(store, spec)
    unfinished = [stage for stage in spec.stages if stage.name not in finished]
    running = unfinished[0] if unfinished else None
    measures = running is not None and running.kind == "measure"
    seconds = sum(manifest.seconds for manifest in finished.values())
    per_hour = spec.prices.per_engine_hour
    return Status(
        done=len(finished),
        stages=len(spec.stages),
        running=running.name if running else None,
        steps=_count_steps(store, spec, running) if running else 0,
        planned_steps=_planned_steps(spec, running) if running else 0,
        next=unfinished[1].name if len(unfinished) > 1 else None,
        seconds=seconds,
        seconds_left=_seconds_left(store, spec, finished) if finished and not measures else None,
        trained_tokens=_trained_tokens(store, spec),
        cost=seconds / HOUR_S * per_hour if per_hour else None,
    )


def _count_steps(store: Store, spec: CurriculumSpec, stage: Stage) -> int:
    run = f"{spec.name}-{stage.name}"
    if stage.kind in ("cold_start", "consolidate"):
        return supervised_steps(store, run)
    return sum(1 for _ in store.list(keys.all_steps(run)))


def _planned_steps(spec: CurriculumSpec, stage: Stage) -> int:
    section = getattr(spec, stage.kind, None)
    return section.steps if isinstance(section, ColdStart | GrpoStage) else 0


def _trained_tokens(store: Store, spec: CurriculumSpec) -> int:
    taken = (step.figures for steps in training_steps(store, spec).values() for step in steps)
    return int(
        sum(each["completion_length"] * each["samples"] for each in taken if "samples" in each)
    )


def _seconds_left(
    store: Store, spec: CurriculumSpec, finished: Mapping[str, StageManifest]
) -> float:
    """Estimate the time of the unfinished stages, without measuring, which no other stage
    resembles.
    """
    total = 0.0
    for stage in spec.stages:
        if stage.name not in finished and stage.kind != "measure":
            total += _expected_seconds(spec, stage, finished) * _share_left(store, spec, stage)
    return total


def _expected_seconds(
    spec: CurriculumSpec, stage: Stage, finished: Mapping[str, StageManifest]
) -> float:
    """The time of the last finished stage of the same kind, else the mean of all finished ones."""
    alike = [
        finished[other.name].seconds
        for other in spec.stages
        if other.name in finished and (other.kind, other.ablation) == (stage.kind, stage.ablation)
    ]
    return alike[-1] if alike else fmean(manifest.seconds for manifest in finished.values())


def _share_left(store: Store, spec: CurriculumSpec, stage: Stage) -> float:
    """The share of a stage's steps that are left; 1 for a stage without steps."""
    planned = _planned_steps(spec, stage)
    return 1 - _count_steps(store, spec, stage) / planned if planned else 1.0


def serving(spec: CurriculumSpec, done: dict[str, StageManifest]) -> dict[ModelRole, str]:
    """The version that each role serves after these stages."""
    served: dict[ModelRole, str] = dict.fromkeys(MODEL_ROLES, spec.start)
    for manifest in done.values():
        served |= manifest.serves
    return served


def serving_before(
    spec: CurriculumSpec, done: dict[str, StageManifest], name: str
) -> dict[ModelRole, str]:
    """The version of each role before the stage `name`; if it is unfinished, those now in
    service.
    """
    return serving(spec, dict(takewhile(lambda each: each[0] != name, done.items())))


class FigureFile(Record):
    """The figures of one version for one role on the test split."""

    figures: dict[str, Figure]


def find_figures(store: Store, name: str, what: str) -> dict[str, Figure] | None:
    """The measured figures of `what`, or None."""
    found = find_record(store, keys.figures(name, what), FigureFile)
    return found.figures if found else None


def put_figures(store: Store, name: str, what: str, figures: dict[str, Figure]) -> None:
    put_record(store, keys.figures(name, what), FigureFile(figures=figures))


def all_figures(store: Store, name: str) -> dict[str, dict[str, Figure]]:
    """All measured figures, by "version/what"."""
    prefix = keys.all_figures(name)
    return {
        keys.name_below(prefix, key): get_record(store, key, FigureFile).figures
        for key in store.list(prefix)
    }
