"""`proofloop runs steps`: the figures of a training as a researcher reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import Models, RunSpec
from proofloop.config.run_file.problems import Problems
from proofloop.config.run_file.training import RoleTraining, Training
from proofloop.curriculum.status import add_run, freeze
from proofloop.errors import ConfigError
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import TrainingStep
from proofloop.store import LocalStore, put_record

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop_trainer.steps import open_learner, take_step
from tests.unit.trainer.grpo_examples import ONE_UPDATE, batch, ragged_samples, save_tiny_model

pytestmark = pytest.mark.usefixtures("quiet_log")


def put_step(store: LocalStore, stage: str, number: int, **figures: float) -> TrainingStep:
    run = f"course-{stage}"
    add_run(store, "course", run)
    step = TrainingStep(
        run_id=run,
        role="verifier",
        step=number,
        version=keys.model(run, "verifier", number),
        sampled_by=("v",),
        figures={"mean_reward": 0.5, **figures},
        reward_parts={"format": 1.0, "score": 0.625},
    )
    return put_record(store, keys.step(run, "verifier", number), step)


@pytest.fixture
def course(tmp_path: Path) -> LocalStore:
    """A curriculum whose first stage took two steps, and whose enhanced one refreshed its
    meta-verifier.
    """
    store = LocalStore(tmp_path)
    freeze(store, CurriculumSpec(name="course"))
    for number in (1, 2):
        put_step(
            store,
            "1-verifier",
            number,
            kl=0.0012,
            groups=8,
            groups_without_signal=3,
            tokens=900,
            seconds=3,
        )
    for stage in ("1-enhanced-refresh-10", "1-enhanced-refresh-2", "1-enhanced", "1-meta_verifier"):
        put_step(store, stage, 1)
    return store


def ask(store: LocalStore, *words: str) -> Result:
    return CliRunner().invoke(app, ["runs", "steps", *words, "--store", str(store.root)])


def as_json(store: LocalStore, *words: str) -> list[dict[str, Any]]:
    return json.loads(ask(store, *words, "--json").stdout)


def test_a_step_is_a_line_however_narrow_the_terminal(
    course: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "40")
    title, head, first, second = ask(course, "course", "1-verifier").stdout.splitlines()
    assert title.strip() == "steps of 1-verifier"
    assert head.split()[:5] == ["step", "reward", "format", "score", "KL"]
    assert first.split() == ["1", "0.500", "1.000", "0.625", "0.0012", *["-"] * 7, "3/8", "300"]
    assert second.split()[0] == "2"


def test_without_a_stage_all_are_shown_in_the_order_in_which_they_are_trained(course: LocalStore):
    order = [
        "1-verifier",
        "1-meta_verifier",
        "1-enhanced",
        "1-enhanced-refresh-2",
        "1-enhanced-refresh-10",
    ]
    assert list(dict.fromkeys(row["stage"] for row in as_json(course, "course"))) == order
    shown = ask(course, "course").stdout
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("steps of")] == order


def test_json_has_the_whole_records_of_what_the_trainer_took(tmp_path: Path):
    store, model = LocalStore(tmp_path / "store"), save_tiny_model(tmp_path / "model")
    nano = Models(generator="nano-base", verifier="nano-base", meta_verifier="nano-base")
    problems = Problems(domain="nano", count=1)
    spec = RunSpec(
        name="run",
        problems=problems,
        models=nano,
        training=Training(verifier=RoleTraining(steps=2)),
    )
    create_run(store, spec, resume=False)
    assert as_json(store, "run") == []
    learner = open_learner(store, "run", "verifier", 0, ONE_UPDATE, model, model)
    taken = [
        take_step(store, "run", "verifier", learner, batch(*ragged_samples(8)), model)
        for _ in range(2)
    ]
    records = [{"stage": "verifier", **step.model_dump(mode="json")} for step in taken]
    assert as_json(store, "run", "verifier") == records
    assert taken[1].version == keys.model("run", "verifier", 2)
    assert ask(store, "run", "verifier").stdout.splitlines()[-1].split()[0] == "2"


def test_event_files_have_every_figure_of_each_stage_once(course: LocalStore, tmp_path: Path):
    for _ in range(2):  # the second call replaces what the first one wrote
        assert ask(course, "course", "--tensorboard", str(tmp_path / "tb")).exit_code == 0
    stages = {folder.name: list(folder.iterdir()) for folder in (tmp_path / "tb").iterdir()}
    assert stages.keys() == {row["stage"] for row in as_json(course, "course")}
    (file,) = stages["1-verifier"]
    read = [(name, step, round(value, 4)) for name, step, value in scalars(file)]
    assert ("kl", 1, 0.0012) in read and ("reward/score", 2, 0.625) in read
    assert len(read) == 2 * (6 + 2)


def scalars(file: Path) -> Iterator[tuple[str, int, float]]:
    """The scalars of an event file: records of a length, its checksum, an event, its checksum."""
    data = file.read_bytes()
    while data:
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            yield value.tag, event.step, value.simple_value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("cours",), "the store has: course (a curriculum)"),
        (
            ("course", "verifier"),
            "stages with training steps: 1-verifier, 1-meta_verifier, 1-enhanced,",
        ),
    ],
)
def test_a_wrong_name_says_what_there_is(course: LocalStore, words: tuple[str, ...], said: str):
    error = ask(course, *words).exception
    assert isinstance(error, ConfigError)
    assert said in str(error)


def test_a_stage_that_has_not_begun_has_no_steps_and_is_no_error(course: LocalStore):
    assert as_json(course, "course", "2-generator") == []
    result = ask(course, "course", "2-generator")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        "no steps of 2-generator\n",
    )
