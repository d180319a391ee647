"""How far a curriculum is: what it and its stages left in the store, and which version serves which
role after them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import takewhile

from pydantic import Field

from proofloop.config.curriculum_file import CHANGEABLE, CurriculumSpec, Files, GrpoStage, Stage
from proofloop.config.frozen import first_difference, read_frozen
from proofloop.errors import ConfigError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.runs.figures import Figure
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES, ModelRole, Record, TrainingStep
from proofloop.store import Store, find_record, get_record, put_record


class GateReport(Record):
    """The paired difference of a stage's figure on the validation split, after minus before."""

    figure: str
    before: float
    after: float
    difference: float
    noise: float
    promoted: bool


class StageManifest(Record):
    """What a finished stage leaves: the version it made, which roles it serves from now on, and
    what it took.

    `seconds`, `cpu_seconds`: of the process that finished it; what it took before it was
    interrupted is not in them.
    """

    stage: str
    version: str | None = None
    serves: dict[ModelRole, str] = Field(default_factory=dict)
    gates: tuple[GateReport, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class FileDigests(Record):
    """The SHA-256 of each file of [files] by its path: rows decide which problem a step has."""

    files: dict[str, str]


def freeze(store: Store, spec: CurriculumSpec) -> PromptPack:
    """Keep the curriculum, its files' digests and its prompts in the store, or find them there; the
    prompts.

    Raises ConfigError if the curriculum or one of its files is another.
    """
    body = spec.model_dump_json(exclude={"base"}).encode()
    is_new = store.put_if_absent(keys.curriculum(spec.name), body, durable=True)
    begun = spec if is_new else read_frozen(store.get(keys.curriculum(spec.name)), CurriculumSpec)
    if change := first_difference(spec, begun, apart_from=CHANGEABLE):
        raise ConfigError(
            f"curriculum {spec.name!r} was started with different settings: {change}",
            "a started curriculum cannot be changed; give the new one a different name",
        )
    if spec.files:
        _freeze_files(store, spec, spec.files)
    key = keys.prompts(spec.name)
    kept = find_record(store, key, PromptPack)
    return kept or put_record(store, key, load_pack(spec.prompts, spec.base), durable=True)


def changed(store: Store, spec: CurriculumSpec) -> str | None:
    """What is allowed to differ from the curriculum as it began, and does: the first key, with both
    values.
    """
    begun = read_frozen(store.get(keys.curriculum(spec.name)), CurriculumSpec)
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
                f" {digest[:12]}, and was"
                f" {begun[path][:12]}",
                "restore the old file, or start a curriculum with a different name on the new one",
            )


def find_curriculum(store: Store, name: str) -> CurriculumSpec | None:
    """The curriculum of that name in the store."""
    key = keys.curriculum(name)
    return read_frozen(store.get(key), CurriculumSpec) if store.exists(key) else None


def manifests(store: Store, spec: CurriculumSpec) -> dict[str, StageManifest]:
    """The manifests of the finished stages, in their order."""
    found = (
        (stage.name, find_record(store, keys.stage(spec.name, stage.name), StageManifest))
        for stage in spec.stages
    )
    return {name: manifest for name, manifest in found if manifest is not None}


def finish(store: Store, spec: CurriculumSpec, manifest: StageManifest) -> StageManifest:
    """Write a stage's manifest: from now on it is done."""
    return put_record(store, keys.stage(spec.name, manifest.stage), manifest, durable=True)


class Standing(Record):
    """Where a curriculum stands. `seconds_left` is a guess from the finished stages; None while
    there is none.

    `trained_tokens`: of the answers sampled for GRPO steps; what judges, gates and labels sampled
      is not counted.
    `cost`: the finished stages' hours at `per_engine_hour`; a price of tokens is in no part of it.
    """

    done: int
    stages: int
    running: str | None
    steps: int
    steps_wanted: int
    next: str | None
    seconds: float
    seconds_left: float | None
    trained_tokens: int
    cost: float


def standing(store: Store, spec: CurriculumSpec) -> Standing:
    """What is done, what runs or comes next, how long it took and will take, and what the engine's
    hours cost.
    """
    finished = manifests(store, spec)
    waiting = [stage for stage in spec.stages if stage.name not in finished]
    running = waiting[0] if waiting else None
    seconds = sum(manifest.seconds for manifest in finished.values())
    steps = (
        get_record(store, key, TrainingStep).figures
        for key in store.list(keys.all_steps(spec.name))
    )
    tokens = sum(
        figures["completion_length"] * figures["samples"]
        for figures in steps
        if "samples" in figures
    )
    return Standing(
        done=len(finished),
        stages=len(spec.stages),
        running=running.name if running else None,
        steps=sum(1 for _ in _steps(store, spec, running)) if running else 0,
        steps_wanted=_steps_wanted(spec, running) if running else 0,
        next=waiting[1].name if len(waiting) > 1 else None,
        seconds=seconds,
        seconds_left=_guess(store, spec, finished, waiting) if finished else None,
        trained_tokens=int(tokens),
        cost=seconds / 3600 * spec.prices.per_engine_hour,
    )


def _steps(store: Store, spec: CurriculumSpec, stage: Stage) -> Iterator[str]:
    return store.list(keys.steps(spec.name, stage.name))


def _steps_wanted(spec: CurriculumSpec, stage: Stage) -> int:
    section = getattr(spec, stage.kind, None)
    return section.steps if isinstance(section, GrpoStage) else 0


def _guess(
    store: Store, spec: CurriculumSpec, finished: dict[str, StageManifest], waiting: Sequence[Stage]
) -> float:
    """Seconds of these stages: what one of their kind took before, or the mean of all; of the first
    what is left.

    Measuring is like none of them, and is left out.
    """
    taken = [
        (stage, finished[stage.name].seconds) for stage in spec.stages if stage.name in finished
    ]
    mean = sum(seconds for _, seconds in taken) / len(taken)
    total = 0.0
    for stage in (stage for stage in waiting if stage.kind != "measure"):
        alike = [
            seconds
            for one, seconds in taken
            if (one.kind, one.ablation) == (stage.kind, stage.ablation)
        ]
        wanted = _steps_wanted(spec, stage)
        left = 1 - sum(1 for _ in _steps(store, spec, stage)) / wanted if wanted else 1.0
        total += (alike[-1] if alike else mean) * left
    return total


def serving(spec: CurriculumSpec, done: dict[str, StageManifest]) -> dict[ModelRole, str]:
    """The version that each role serves after these stages."""
    served: dict[ModelRole, str] = dict.fromkeys(MODEL_ROLES, spec.start)
    for manifest in done.values():
        served |= manifest.serves
    return served


def serving_before(
    spec: CurriculumSpec, done: dict[str, StageManifest], name: str
) -> dict[ModelRole, str]:
    """The versions that served when the stage of that name began; where it has not ended, that
    serve now.
    """
    return serving(spec, dict(takewhile(lambda each: each[0] != name, done.items())))


class FigureFile(Record):
    """The figures of one version for one role on the test split."""

    figures: dict[str, Figure]


def find_figures(store: Store, name: str, what: str) -> dict[str, Figure] | None:
    """Figures that were measured already."""
    found = find_record(store, keys.figures(name, what), FigureFile)
    return found.figures if found else None


def put_figures(store: Store, name: str, what: str, figures: dict[str, Figure]) -> None:
    put_record(store, keys.figures(name, what), FigureFile(figures=figures))


def all_figures(store: Store, name: str) -> dict[str, dict[str, Figure]]:
    """All that was measured, by "version/what"."""
    prefix = keys.all_figures(name)
    return {
        keys.name_below(prefix, key): get_record(store, key, FigureFile).figures
        for key in store.list(prefix)
    }
