"""A curriculum in the store: what is frozen, its progress, its runs, the versions in service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from proofloop.cli.runs.show import stage_row
from proofloop.config.curriculum_file import CurriculumSpec, load_curriculum
from proofloop.config.run_file import Prices
from proofloop.curriculum.status import (
    StageManifest,
    add_run,
    drop_unused,
    find_curriculum,
    finish,
    freeze,
    manifests,
    read_status,
    runs_of,
    serving,
    serving_before,
    stage_of,
)
from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, TrainingStep
from proofloop.store import LocalStore, put_record

FILES = 'start = "mine"\n[files]\nproblems = "p.jsonl"\nproofs = "v.jsonl"\nanalyses = "a.jsonl"\n'


def put_step(
    store: LocalStore,
    run: str,
    number: int,
    *,
    role: ModelRole | Literal["all"] = "verifier",
    **figures: float,
) -> None:
    """A step of a run of the curriculum `c`."""
    add_run(store, "c", run)
    step = TrainingStep(
        run_id=run,
        role=role,
        step=number,
        version="v",
        sampled_by=("v",),
        figures=figures,
        reward_parts={},
    )
    put_record(store, keys.step(run, role, number), step)


def test_the_time_left_is_estimated_from_stages_of_the_same_kind(tmp_path: Path):
    spec, store = CurriculumSpec(name="c", measured=0, ablations=("no-meta",)), LocalStore(tmp_path)
    for stage in spec.stages:
        if stage.iteration < 2:
            seconds = {"1-enhanced": 500.0, "1-enhanced-no-meta": 100.0}.get(stage.name, 10.0)
            finish(store, spec, StageManifest(stage=stage.name, seconds=seconds))
    assert read_status(store, spec).seconds_left == 500 + 3 * 10
    for step in range(1, spec.enhanced.steps // 2 + 1):
        put_step(store, "c-2-enhanced", step)
    now = read_status(store, spec)
    assert (now.steps, now.seconds_left) == (25, 250 + 3 * 10)


def test_the_time_left_is_not_known_while_a_curriculum_is_measured(tmp_path: Path):
    spec, store = CurriculumSpec(name="c"), LocalStore(tmp_path)
    for stage in spec.stages[:-1]:
        finish(store, spec, StageManifest(stage=stage.name, seconds=10.0))
    now = read_status(store, spec)
    assert (now.running, now.seconds_left) == ("measure", None)


def test_a_curriculum_costs_its_engines_hours_and_counts_the_tokens_it_trained_on(tmp_path: Path):
    prices = Prices(per_engine_hour=6.0, per_million_completion_tokens=1000.0)
    spec, store = CurriculumSpec(name="c", measured=0, prices=prices), LocalStore(tmp_path)
    finish(store, spec, StageManifest(stage="1-verifier", seconds=1800.0))
    put_step(store, "c-1-verifier", 1, completion_length=12.5, samples=8.0)
    put_step(store, "c-1-enhanced-refresh-1", 1, completion_length=2.5, samples=8.0)
    now = read_status(store, spec)
    assert (now.trained_tokens, now.cost) == (120, 3.0)
    by_token = spec.model_copy(update={"prices": Prices(per_million_completion_tokens=1000.0)})
    assert read_status(store, by_token).cost is None


@pytest.mark.parametrize(
    ("change", "is_free"),
    [("keep", True), ("learning_rate", True), ("prompts", False), ("samples", False)],
)
def test_a_consolidation_may_learn_otherwise_but_samples_the_same_answers(
    change: str, is_free: bool, tmp_path: Path
):
    """The runs of its answers are frozen, and may have begun."""
    store = LocalStore(tmp_path)
    freeze(store, CurriculumSpec(name="c"))
    now = CurriculumSpec.model_validate({"name": "c", "consolidate": {change: 1}})
    if is_free:
        freeze(store, now)
        return
    with pytest.raises(
        ConfigError, match=rf"different settings: \[consolidate\] {change} = 1, was"
    ):
        freeze(store, now)


@pytest.mark.parametrize(
    "change",
    [
        {"engine": {"kind": "triton", "settings": {"endpoints": ["b:8001"], "max_attempts": 9}}},
        {"prices": {"per_engine_hour": 2.0}},
    ],
)
def test_an_engine_may_move_and_get_another_price(change: dict[str, object], tmp_path: Path):
    """A stage may take days."""
    store, engine = LocalStore(tmp_path), {"kind": "triton", "settings": {"endpoints": ["a:8001"]}}
    freeze(store, CurriculumSpec.model_validate({"name": "c", "engine": engine}))
    freeze(store, CurriculumSpec.model_validate({"name": "c", "engine": engine, **change}))


@pytest.mark.parametrize(
    ("run", "stage"),
    [
        ("c-1-enhanced", "1-enhanced"),
        ("c-1-enhanced-refresh-1-draw-0", "1-enhanced"),
        ("c-1-enhanced-no-meta", "1-enhanced-no-meta"),
        ("c-1-label-nano-earlier", "1-label"),
        ("c-measure-1-generator-refinement", "measure"),
        ("c-D_v-0", None),
        ("c-gate-verifier-0123456789ab", None),
    ],
)
def test_a_run_belongs_to_the_stage_that_its_name_begins_with(run: str, stage: str | None):
    assert stage_of(CurriculumSpec(name="c", ablations=("no-meta",)), run) == stage


def test_finished_stages_keep_their_results_alone(tmp_path: Path):
    spec, store = CurriculumSpec(name="c"), LocalStore(tmp_path)
    runs = ("c-1-verifier", "c-1-enhanced", "c-1-enhanced-refresh-1", "c-2-enhanced")
    files: dict[str, str] = {}
    for run in runs:
        add_run(store, "c", run)
        for step in (1, 2):
            files[f"{run} {step}"] = f"{keys.model(run, 'verifier', step)}/0123456789ab/m.bin"
        files[f"{run} checkpoint"] = f"{keys.checkpoint(run, 'verifier', 2)}/0123456789ab/m.bin"
    for key in files.values():
        store.put_if_absent(key, b"weights")
    refreshed = keys.model("c-1-enhanced-refresh-1", "verifier", 2)
    finish(
        store,
        spec,
        StageManifest(stage="1-verifier", version=keys.model("c-1-verifier", "verifier", 2)),
    )
    finish(
        store,
        spec,
        StageManifest(
            stage="1-enhanced",
            version=keys.model("c-1-enhanced", "verifier", 2),
            serves={"meta_verifier": refreshed},
        ),
    )
    drop_unused(store, spec)
    kept = {name for name, key in files.items() if store.exists(key)}
    assert kept == {
        *("c-1-verifier 2", "c-1-enhanced 2", "c-1-enhanced-refresh-1 2"),
        *("c-2-enhanced 1", "c-2-enhanced 2", "c-2-enhanced checkpoint"),
    }
    assert set(runs_of(store, "c")) == set(runs)


def test_an_ablation_begins_where_the_stage_began_that_it_is_compared_with():
    spec = CurriculumSpec(name="c", ablations=("no-meta",))
    done = {
        "1-verifier": StageManifest(stage="1-verifier", serves={"verifier": "score-only"}),
        "1-enhanced": StageManifest(stage="1-enhanced", serves={"verifier": "enhanced"}),
    }
    assert serving_before(spec, done, "1-enhanced")["verifier"] == "score-only"
    assert serving_before(spec, done, "1-generator")["verifier"] == "enhanced"


def write_rows(folder: Path) -> None:
    for name in ("p", "v", "a"):
        (folder / f"{name}.jsonl").write_text(f"{json.dumps({'question': name})}\n")


def test_files_begin_without_a_cold_start_and_are_frozen_like_a_domain(tmp_path: Path):
    (tmp_path / "c.toml").write_text(FILES)
    write_rows(tmp_path)
    spec, store = load_curriculum(tmp_path / "c.toml"), LocalStore(tmp_path)
    assert (spec.stages[0].name, spec.prompts) == ("1-verifier", "math")
    for _ in range(2):
        freeze(store, spec)
    assert find_curriculum(store, "c") == spec.model_copy(update={"base": Path()})


@pytest.mark.parametrize("name", ["p", "v", "a"])
def test_a_file_that_changed_since_the_curriculum_began_is_refused(tmp_path: Path, name: str):
    (tmp_path / "c.toml").write_text(FILES)
    write_rows(tmp_path)
    spec, store = load_curriculum(tmp_path / "c.toml"), LocalStore(tmp_path)
    freeze(store, spec)
    with (tmp_path / f"{name}.jsonl").open("a") as file:
        file.write('{"question": "more"}\n')
    said = (
        rf"^{name}.jsonl has changed since curriculum 'c' was started: its SHA-256 is \w+, and was"
        r" \w+\nhint: restore"
    )
    with pytest.raises(ConfigError, match=said):
        freeze(store, spec)
    freeze(store, spec.model_copy(update={"name": "d"}))
    write_rows(tmp_path)
    freeze(store, spec)


def test_another_curriculum_of_the_same_name_is_refused(tmp_path: Path):
    store = LocalStore(tmp_path)
    freeze(store, CurriculumSpec(name="c"))
    less_memory = {
        "engine": {"settings": {"max_batch": 8, "models_kept": 2}},
        "verifier": {"settings": {"tokens_per_pass": 99}},
    }
    freeze(store, CurriculumSpec.model_validate({"name": "c", "base": tmp_path, **less_memory}))
    with pytest.raises(ConfigError, match=r"was started with different settings: .* = .*, was "):
        freeze(store, CurriculumSpec(name="c", seed=1))


def test_a_version_serves_from_the_manifest_on_that_says_so(tmp_path: Path):
    store, spec = LocalStore(tmp_path), CurriculumSpec(name="c", measured=0)
    finish(
        store,
        spec,
        StageManifest(
            stage="0-cold_start", version="m0", serves=dict.fromkeys(("verifier",), "m0")
        ),
    )
    finish(store, spec, StageManifest(stage="1-verifier", version="m1", serves={}, seconds=30.0))
    assert serving(spec, manifests(store, spec)) == {
        "generator": "nano-base",
        "verifier": "m0",
        "meta_verifier": "nano-base",
    }
    now = read_status(store, spec)
    assert (now.done, now.running, now.next, now.seconds) == (
        2,
        "1-meta_verifier",
        "1-enhanced",
        30.0,
    )
    assert store.exists(keys.stage("c", "1-verifier"))


def test_supervised_steps_are_counted_by_the_last_one_that_was_recorded(tmp_path: Path):
    spec, store = CurriculumSpec(name="c"), LocalStore(tmp_path)
    for number in (36, 78):
        put_step(store, "c-0-cold_start", number, role="all")
    now = read_status(store, spec)
    assert (now.running, now.steps, now.planned_steps) == ("0-cold_start", 78, 600)
    row = stage_row("0-cold_start", None, now)
    assert row["state"] == "78 of 600 steps"
