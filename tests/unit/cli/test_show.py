"""`proofloop runs list`, and `runs show` of a curriculum."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from proofloop.cli.runs.show import list_runs, show, stage_row
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.curriculum.status import read_status
from proofloop.errors import ConfigError
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import TrainingStep
from proofloop.store import LocalStore, put_record
from tests.builders import runspec


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


def test_a_run_that_this_version_cannot_read_is_listed_as_unreadable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(tmp_path)
    create_run(store, runspec("good"), resume=False)
    store.put_if_absent(keys.run_spec("other"), b'{"name": "other", "problems": 3}')
    store.put_if_absent(keys.curriculum("third"), b"[]")
    list_runs(tmp_path, as_json=True)
    shown = capsys.readouterr()
    states = {row["run"]: row["state"] for row in json.loads(shown.out)}
    assert states == {"good": "0 of 4", "other": "unreadable", "third": "unreadable"}
    assert "run 'other' is unreadable: specs/other.json" in shown.err


def test_a_name_that_no_run_can_have_is_refused_with_the_known_names(tmp_path: Path) -> None:
    create_run(LocalStore(tmp_path), runspec("good"), resume=False)
    with pytest.raises(ConfigError, match=r"no run named '\.\./x'(.|\n)*the store has: good"):
        show("../x", tmp_path)


def test_a_closed_standard_output_is_no_error(tmp_path: Path) -> None:
    create_run(LocalStore(tmp_path), runspec("good"), resume=False)
    program = "from proofloop.cli import main; main()"
    command = [sys.executable, "-c", program, "runs", "list", "--store", str(tmp_path)]
    ended = subprocess.run(
        f"{shlex.join(command)} >&-", shell=True, check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_texts_are_printed_as_utf8_in_every_locale(tmp_path: Path) -> None:
    file = tmp_path / "Übung∀.jsonl"
    file.write_text('{"question": "Prove that 2 is even."}', "utf-8")
    create_run(LocalStore(tmp_path), runspec("good", problems={"file": str(file)}), resume=False)
    program = "from proofloop.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "runs", "list", "--store", str(tmp_path)],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "Übung∀".encode() in ended.stdout
