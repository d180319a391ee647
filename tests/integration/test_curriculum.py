"""The curriculum on the shipped nano model: stopped anywhere, it goes on with the identical next step."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proofloop import keys
from proofloop.cli.app import app
from proofloop.curriculum import CurriculumSpec, manifests
from proofloop.engine.pool import Engines
from proofloop.errors import ProofloopError
from proofloop.records import TrainingBatch, TrainingSample
from proofloop.store import LocalStore, get_record

pytest.importorskip("proofloop_trainer.curriculum.workflow", reason="proofloop-trainer is not installed")

from proofloop_trainer.curriculum.workflow import iterate

pytestmark = [pytest.mark.usefixtures("quiet_log"), pytest.mark.timeout(300)]
ANSWER = {"max_tokens": 64}


def small(**sections: Any) -> CurriculumSpec:
    return CurriculumSpec.model_validate(
        {
            "name": "small",
            "iterations": 1,
            "measured": 0,
            "sampling": dict.fromkeys(("generator", "verifier", "meta_verifier"), ANSWER),
            "cold_start": {"steps": 0},
            "data": {"problems": 16, "proofs": 12, "analyses": 12, "validation": 8},
            "verifier": {"steps": 3, "groups": 3, "samples": 4},
            "meta_verifier": {"steps": 1, "groups": 2, "samples": 4},
            "enhanced": {"steps": 2, "groups": 4, "samples": 4, "meta_groups": 1, "refresh": 1, "refresh_steps": 1},
            "generator": {"steps": 1, "groups": 2, "samples": 4, "critiques": 2, "metas": 1},
            "labels": {"problems": 3, "proofs_per_problem": 1, "rule": {"n": 2, "m": 1, "k": 1}},
            "consolidate": {"prompts": 4, "samples": 2},
            **sections,
        }
    )


class Killed(Exception):
    """What a test kills the process with."""


def run(spec: CurriculumSpec, root: Path, *, kill_at: str = "") -> LocalStore:
    store = LocalStore(root)
    engines = Engines(store, root / "cache")

    def say(text: str) -> None:
        if kill_at and text.startswith(kill_at):
            raise Killed(text)

    try:
        iterate(spec, store, engines, threading.Event(), say)
    finally:
        engines.close()
    return store


def samples(store: LocalStore, step: int) -> tuple[TrainingSample, ...]:
    return get_record(store, keys.batch("small", "1-verifier", step), TrainingBatch).samples


def test_a_killed_curriculum_ends_with_the_same_weights_as_one_that_ran_through(tmp_path: Path):
    spec = small(enhanced={"steps": 0}, generator={"steps": 0}, meta_verifier={"steps": 0})
    through = run(spec, tmp_path / "through")
    for kill_at in ("1-verifier: step 1/3", "1-verifier: step 2/3"):
        with pytest.raises(Killed):
            run(spec, tmp_path / "killed", kill_at=kill_at)
    resumed = run(spec, tmp_path / "killed")
    for step in (1, 2, 3):
        file = f"{keys.model('small', '1-verifier', step)}/model.safetensors"
        assert resumed.get(file) == through.get(file)
        assert samples(resumed, step - 1) == samples(through, step - 1)


def test_every_stage_leaves_a_manifest_and_a_finished_one_is_not_done_again(tmp_path: Path):
    spec = small(ablations=("no-meta", "no-self"))
    store = run(spec, tmp_path)
    assert list(manifests(store, spec)) == [stage.name for stage in spec.stages]
    before = {key: store.get(key) for key in store.list("runs/small/stages/")}
    run(spec, tmp_path, kill_at="stage ")
    assert {key: store.get(key) for key in store.list("runs/small/stages/")} == before
    shown = CliRunner().invoke(app, ["runs", "show", "small", "--store", str(tmp_path), "--json"])
    now = json.loads(shown.stdout)["standing"]
    assert (now["done"], now["running"], now["seconds_left"]) == (len(spec.stages), None, 0.0)
    assert now["completion_tokens"] > 0


def test_a_judge_that_says_the_same_to_everything_stops_the_stage(tmp_path: Path):
    watch = {"window": 1, "same_score": 0.01}
    for _ in range(2):  # and it stays stopped
        with pytest.raises(ProofloopError, match="stage 1-verifier was stopped: always-"):
            run(small(watch=watch), tmp_path)
    assert len(list(LocalStore(tmp_path).list(keys.steps("small", "1-verifier")))) == 1
