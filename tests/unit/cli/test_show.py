"""`proofloop runs show` of a curriculum."""

from __future__ import annotations

from pathlib import Path

from proofloop.cli.runs.show import stage_row
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.curriculum.status import read_status
from proofloop.schema import keys
from proofloop.schema.records import TrainingStep
from proofloop.store import LocalStore, put_record


def test_the_next_stage_shows_its_steps(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    spec = CurriculumSpec.model_validate({"name": "c", "cold_start": {"steps": 0}})
    first, second = spec.stages[0].name, spec.stages[1].name
    assert stage_row(first, None, read_status(store, spec))["state"] == "next"
    run = f"c-{first}"
    step = TrainingStep(
        run_id=run, role="verifier", step=1, version="v", sampled_by=(), figures={}, reward_parts={}
    )
    put_record(store, keys.step(run, "verifier", 1), step)
    now = read_status(store, spec)
    assert stage_row(first, None, now)["state"] == f"1 of {spec.verifier.steps} steps"
    assert stage_row(second, None, now)["state"] == "waits"
