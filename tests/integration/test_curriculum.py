"""The curriculum on the shipped nano model: every stage is a run, and a killed one continues with
the identical next step.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.curriculum.cases import CaseFile
from proofloop.curriculum.controller import iterate
from proofloop.curriculum.status import all_figures, find_curriculum, manifests, runs_of
from proofloop.errors import ConfigError, ProofloopError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.runs.model_registry import last_served, published_versions
from proofloop.runs.spec import find_spec, get_spec
from proofloop.schema import keys
from proofloop.schema.given import GivenPortion
from proofloop.schema.records import MODEL_ROLES, TrainingBatch
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

pytestmark = pytest.mark.usefixtures("quiet_log")
ANSWER = {"max_tokens": 64}
NO_STEPS, TOO_SHORT = {"steps": 0}, {"max_tokens": 2}
NO_TRAINING = dict.fromkeys(("verifier", "meta_verifier", "enhanced", "generator"), NO_STEPS)
ALL_TOO_SHORT = dict.fromkeys(("generator", "verifier", "meta_verifier"), TOO_SHORT)
EXAMPLE = Path(__file__).parents[2] / "examples" / "iterate-files" / "nano_files.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


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
            "enhanced": {
                "steps": 2,
                "groups": 4,
                "samples": 4,
                "meta_groups": 1,
                "refresh": 1,
                "refresh_steps": 1,
            },
            "generator": {"steps": 1, "groups": 2, "samples": 4, "critiques": 2, "metas": 1},
            "labels": {"problems": 3, "proofs_per_problem": 1, "rule": {"n": 2, "m": 1, "k": 1}},
            "consolidate": {"prompts": 4, "samples": 2},
            **sections,
        }
    )


class Killed(Exception):
    """What a test kills the process with."""


def run(
    spec: CurriculumSpec, root: Path, *, kill_at: str = "", say: Callable[[str], None] | None = None
) -> LocalStore:
    store = LocalStore(root)
    engines = Engines(store, root / "cache")

    def kill(text: str) -> None:
        if kill_at and text.startswith(kill_at):
            raise Killed(text)

    try:
        iterate(spec, store, engines, threading.Event(), say or kill)
    finally:
        engines.close()
    return store


Learnt = tuple[str, tuple[int, ...], float, str]


def learnt(store: LocalStore, step: int) -> list[Learnt]:
    """The answers of a step: their keys, tokens, rewards and versions. Log-probabilities are left
    out: they depend in the last bits on the other calls that the engine had in its batch.
    """
    key = keys.batch("small-1-verifier", "verifier", step)
    samples = get_record(store, key, TrainingBatch).samples
    return [
        (each.key, each.tokens.completion_ids, each.reward, each.model_version) for each in samples
    ]


def parts_by_role(store: LocalStore, stage: str, trained: str = "verifier") -> dict[str, bool]:
    """The roles whose answers a stage's first batch has, and whether R_meta rewards them."""
    found: dict[str, bool] = {}
    key = keys.batch(f"small-{stage}", trained, 0)
    for sample in get_record(store, key, TrainingBatch).samples:
        found[sample.role] = found.get(sample.role, False) or "meta" in sample.reward_parts
    return found


def folders(store: LocalStore, prefix: str) -> list[str]:
    return sorted({keys.version_of(key) for key in store.list(prefix)})


def test_a_killed_curriculum_takes_the_same_steps_as_one_that_ran_through(tmp_path: Path):
    spec = small(enhanced=NO_STEPS, generator=NO_STEPS, meta_verifier=NO_STEPS)
    said: list[str] = []
    through = run(spec, tmp_path / "through", say=said.append)
    assert any(
        re.fullmatch(r"1-verifier: step 3/3, reward \d\.\d{3}, KL \d\.\d{4}, length \d+", line)
        for line in said
    )
    for kill_at in ("1-verifier: step 1/3", "1-verifier: step 2/3"):
        with pytest.raises(Killed):
            run(spec, tmp_path / "killed", kill_at=kill_at)
    resumed = run(spec, tmp_path / "killed")
    assert manifests(resumed, spec)["1-verifier"].version == keys.model(
        "small-1-verifier", "verifier", 3
    )
    assert [learnt(resumed, step) for step in range(3)] == [
        learnt(through, step) for step in range(3)
    ]


def test_finished_stages_keep_their_results_alone(tmp_path: Path):
    """No checkpoint and no version of a step on the way; the next process deletes what a killed one
    could not.
    """
    spec = small(generator=NO_STEPS)
    with pytest.raises(Killed):
        run(spec, tmp_path, kill_at="1-enhanced: step 2/")
    store = LocalStore(tmp_path)
    assert folders(store, keys.all_checkpoints("small-1-verifier")) == []
    assert folders(store, keys.all_checkpoints("small-1-enhanced-refresh-1")) == []
    # As a process leaves it that is killed before it deletes.
    left = keys.checkpoint("small-1-verifier", "verifier", 2)
    store.put_if_absent(f"{left}/0123456789ab/model.safetensors", b"weights")
    run(spec, tmp_path)
    done = manifests(store, spec)
    results = {
        version
        for each in done.values()
        for version in (each.version, *each.serves.values())
        if version
    }
    found = [folders(store, keys.all_models(run)) for run in runs_of(store, "small")]
    assert {version for of_run in found for version in of_run} == results - {spec.start}
    assert not any(folders(store, keys.all_checkpoints(run)) for run in runs_of(store, "small"))


def test_a_version_that_passes_the_gate_is_in_service_under_the_curriculums_name(tmp_path: Path):
    spec = small(enhanced=NO_STEPS, generator=NO_STEPS, gate={"z": 100.0})
    store = run(spec, tmp_path)
    done = manifests(store, spec)
    assert {role: last_served(store, "small", role) for role in MODEL_ROLES} == {
        role: done["1-consolidate"].version for role in MODEL_ROLES
    }


def test_the_enhanced_verifier_learns_from_analyses_of_its_own_between_two_portions(tmp_path: Path):
    enhanced = {"steps": 3, "groups": 4, "samples": 4, "meta_groups": 1, "refresh": 1}
    spec = small(verifier=NO_STEPS, generator=NO_STEPS, enhanced={**enhanced, "refresh_steps": 1})
    store = run(spec, tmp_path)
    portions = [
        get_record(store, key, GivenPortion)
        for key in store.list(keys.given_portions("small-1-enhanced"))
    ]
    judged_by = [{case.meta_verifier_version for case in portion.cases} for portion in portions]
    refreshed = [
        keys.model(f"small-1-enhanced-refresh-{number}", "meta_verifier", 1) for number in (1, 2)
    ]
    first = manifests(store, spec)["1-meta_verifier"].version
    assert [versions - {""} for versions in judged_by] == [{first}, *({v} for v in refreshed)]
    drawn = [
        find_spec(store, f"small-1-enhanced-refresh-{number}-draw-0").models.verifier
        for number in (1, 2)
    ]
    assert drawn == [keys.model("small-1-enhanced", "verifier", number) for number in (1, 2)]


def test_a_refresh_follows_fewer_steps_than_planned_and_the_stage_tells_of_them(tmp_path: Path):
    """All answers of a portion come from one version: after the first step they are too old."""
    enhanced = {"steps": 4, "groups": 2, "samples": 4, "meta_groups": 1, "refresh": 2, "ahead": 2.0}
    stale = {**enhanced, "refresh_steps": 1, "settings": {"max_staleness": 0}}
    no_steps = dict.fromkeys(("verifier", "meta_verifier", "generator"), NO_STEPS)
    data = {"problems": 8, "proofs": 6, "analyses": 4, "validation": 4}
    spec = small(**no_steps, enhanced=stale, data=data)
    with pytest.raises(Killed):
        run(spec, tmp_path, kill_at="1-enhanced-refresh-1: step 1/1")
    with pytest.raises(Killed, match=r"[23] of 4 steps were taken"):
        run(spec, tmp_path, kill_at="warning: 1-enhanced")
    drawn = find_spec(LocalStore(tmp_path), "small-1-enhanced-refresh-1-draw-0").models.verifier
    assert drawn == keys.model("small-1-enhanced", "verifier", 1)


def test_the_engines_memory_may_change_in_the_midst_of_a_stage(tmp_path: Path):
    before, after = (
        small(**ONE_STAGE, engine={"settings": {"max_batch": batch}}) for batch in (48, 24)
    )
    with pytest.raises(Killed):
        run(before, tmp_path, kill_at="1-verifier: step 1/3")
    assert run(after, tmp_path).exists(keys.stage("small", "1-verifier"))


def test_a_consolidation_that_is_taken_up_again_asks_for_no_answer_twice(tmp_path: Path):
    spec = small(**NO_TRAINING)
    with pytest.raises(Killed):
        run(spec, tmp_path, kill_at="1-consolidate: Pass@1")
    store = LocalStore(tmp_path)
    store.delete_prefix(keys.stage("small", "1-consolidate"))
    answers = {key: store.get(key) for key in store.list("runs/small-1-consolidate-verifier/")}
    run(spec, tmp_path)
    now = {key: store.get(key) for key in store.list("runs/small-1-consolidate-verifier/")}
    assert {key for key, body in answers.items() if now[key] != body and "/proofs/" in key} == set()
    assert "1-consolidate" in manifests(store, spec)


ONE_STAGE = {
    "meta_verifier": NO_STEPS,
    "enhanced": NO_STEPS,
    "generator": NO_STEPS,
    "consolidate": {"prompts": 1, "samples": 1},
}


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_no_step(tmp_path: Path):
    """Real processes: killed as the first stage begins, between its steps, and as the next stage
    begins.
    """
    only = {
        "enhanced": NO_STEPS,
        "generator": NO_STEPS,
        "consolidate": {"prompts": 1, "samples": 1},
    }
    spec = small(**only)
    through = run(spec, tmp_path / "through")
    file, root = tmp_path / "curriculum.toml", tmp_path / "killed"
    file.write_text(
        _toml(
            spec.model_dump(
                exclude={"base", "gate", "watch", "prices", "harder", "files"}, exclude_none=True
            )
        ),
        "utf-8",
    )
    command = [
        str(Path(sys.executable).parent / "proofloop"),
        "iterate",
        str(file),
        "--store",
        str(root),
    ]
    for last_words in ("stage 1/", "1-verifier: step 1/3", "stage 2/", None):
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_THREAD},
        ) as process:
            assert process.stderr is not None
            said = iter(process.stderr.readline, "")
            if last_words is not None:
                assert any(line.startswith(last_words) for line in said)
                process.send_signal(signal.SIGKILL)
            rest = "".join(said)
            assert process.wait(120) == (0 if last_words is None else -signal.SIGKILL), rest
    killed = LocalStore(root)
    assert list(manifests(killed, spec)) == [stage.name for stage in spec.stages]
    assert [learnt(killed, step) for step in range(3)] == [
        learnt(through, step) for step in range(3)
    ]


def _toml(fields: dict[str, Any]) -> str:
    """A TOML file of these fields, sections as inline tables."""

    def value(of: Any) -> str:
        if isinstance(of, dict):
            return "{" + ", ".join(f"{name} = {value(each)}" for name, each in of.items()) + "}"
        return json.dumps(of)

    return "\n".join(f"{name} = {value(each)}" for name, each in fields.items())


def test_every_stage_leaves_a_manifest_and_a_finished_one_is_not_done_again(tmp_path: Path):
    spec = small(ablations=("no-meta", "no-self"), measured=4, harder="nano-long", iterations=2)
    store = run(spec, tmp_path)
    assert list(manifests(store, spec)) == [stage.name for stage in spec.stages]
    before = {key: store.get(key) for key in store.list("runs/small/stages/")}
    run(spec, tmp_path, kill_at="stage ")
    assert {key: store.get(key) for key in store.list("runs/small/stages/")} == before
    shown = CliRunner().invoke(app, ["runs", "show", "small", "--store", str(tmp_path), "--json"])
    now = json.loads(shown.stdout)["status"]
    assert (now["done"], now["running"], now["seconds_left"]) == (len(spec.stages), None, 0.0)
    assert now["trained_tokens"] > 0
    asked = CliRunner().invoke(app, ["runs", "cost", "small", "--store", str(tmp_path), "--json"])
    calls = {row["of"]: row["calls"] for row in json.loads(asked.stdout)}
    parts = [*(stage.name for stage in spec.stages), "data and gates"]
    by_stage, by_role = (sum(calls[name] for name in names) for names in (parts, MODEL_ROLES))
    assert by_stage == by_role == calls["total"] > calls["1-generator"] > 0
    assert {"pass_at_1", "self_error"} <= set(
        all_figures(store, "small")["2-generator/generator-hard"]
    )
    assert set(all_figures(store, "small")["1-generator/labels"]) == {"agreement", "undecided"}
    assert "1-enhanced-refreshed/meta" in all_figures(store, "small")
    assert parts_by_role(store, "1-verifier") == {"verifier": False}
    assert parts_by_role(store, "1-enhanced") == {"verifier": True, "meta_verifier": False}
    assert parts_by_role(store, "1-enhanced-no-meta") == {"verifier": False}


def test_the_next_iteration_learns_from_labels_of_what_both_generators_wrote(tmp_path: Path):
    labels = {"problems": 6, "proofs_per_problem": 1, "rule": {"n": 2, "m": 1, "k": 1}}
    spec = small(iterations=2, labels=labels, consolidate={"prompts": 8, "samples": 2})
    store = run(spec, tmp_path)
    writers = [
        find_spec(store, f"small-1-label-nano{which}").models.generator
        for which in ("", "-earlier")
    ]
    assert writers == [keys.model("small-1-generator", "generator", 1), "nano-base"]
    labeled = {
        proof.question
        for proof in get_record(store, keys.cases("small", "labels-1"), CaseFile).proofs
    }
    first = get_record(store, keys.given_portion("small-2-enhanced", 0), GivenPortion).cases
    answers = [case for case in first[: spec.enhanced.groups] if case.analysis is None]
    of_labels = sum(case.question in labeled for case in answers)
    assert 0 < of_labels < len(answers)


def test_files_alone_say_what_is_right_where_no_checker_can(tmp_path: Path):
    """Nano's problems and grades as files; a checker that were asked would raise."""
    write_files(tmp_path)
    store = run(spec := on_files(tmp_path, measured=4), tmp_path / "store")
    done = manifests(store, spec)
    assert list(done) == [
        *(
            "1-verifier",
            "1-meta_verifier",
            "1-enhanced",
            "1-generator",
            "1-label",
            "1-consolidate",
            "measure",
        )
    ]
    assert done["1-generator"].gates[0].figure == "Pass@1, by the judges in service"
    assert sum(done["1-label"].figures.values()) > 0
    assert parts_by_role(store, "1-enhanced") == {"verifier": True, "meta_verifier": False}
    figures = all_figures(store, "small")
    assert {"accuracy", "judged_quality"} <= set(figures["1-enhanced/verifier"])
    assert set(figures["1-generator/generator"]) == {"judged_score", "judged_self_error"}
    assert figures["1-meta_verifier/meta"]["accuracy"].cases > 0


def test_a_template_that_is_edited_half_way_changes_no_stage(tmp_path: Path):
    stages = dict.fromkeys(("meta_verifier", "enhanced", "generator"), NO_STEPS)
    write_files(tmp_path)
    shutil.copytree(
        str(files("proofloop.method.prompts").joinpath("packs", "nano")), tmp_path / "mine"
    )
    spec = on_files(tmp_path, **stages, prompts="mine")
    pack = load_pack("mine", tmp_path)
    with pytest.raises(Killed):
        run(spec, tmp_path / "store", kill_at="1-verifier: step 2/3")
    with (tmp_path / "mine" / "proof_verification.txt").open("a") as template:
        template.write("\nBe strict.")
    store = run(spec, tmp_path / "store")
    for name in ("small", "small-1-label-file"):
        assert get_record(store, keys.prompts(name), PromptPack) == pack


def test_without_graded_analyses_the_meta_verifier_stays_what_it_was(tmp_path: Path):
    write_files(tmp_path)
    stages = dict.fromkeys(("verifier", "meta_verifier", "generator"), NO_STEPS)
    spec = on_files(tmp_path, **stages, enhanced={"steps": 0, "meta_groups": 0})
    files = {"problems": "problems.jsonl", "proofs": "proofs.jsonl"}
    spec = CurriculumSpec.model_validate({**spec.model_dump(), "files": files, "base": tmp_path})
    store = run(spec, tmp_path / "store")
    consolidated = manifests(store, spec)["1-consolidate"]
    assert [gate.figure.split(",")[0] for gate in consolidated.gates] == [
        "Pass@1",
        "score reward times quality of the analysis",
    ]
    assert "meta_verifier" not in consolidated.serves


def test_too_few_rows_are_refused_before_anything_runs(tmp_path: Path):
    write_files(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"\[labels\] problems = 5000: problems.jsonl has \d+ problems in the train",
    ):
        run(on_files(tmp_path, labels={"problems": 5000}), tmp_path / "store")
    proofs = tmp_path / "proofs.jsonl"
    proofs.write_text(proofs.read_text("utf-8").splitlines()[0], "utf-8")
    with pytest.raises(
        ConfigError, match=r"proofs.jsonl needs sound and flawed proofs in the train split"
    ):
        run(on_files(tmp_path), tmp_path / "store")
    assert not any((tmp_path / "store").glob("runs/*"))


def test_an_engine_that_cannot_train_is_refused_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match="no token ids with log-probabilities"):
        run(small(engine={"kind": "simulated"}), tmp_path)


def test_a_consolidation_that_kept_nothing_goes_on_with_a_lower_keep(tmp_path: Path):
    """The generator's answers are too short to be read, and earn 0."""
    sampling = {"sampling": ALL_TOO_SHORT}
    strict, lower = (
        small(**NO_TRAINING, **sampling, consolidate={"prompts": 4, "samples": 2, "keep": keep})
        for keep in (0.9, 0.0)
    )
    with pytest.raises(ProofloopError, match=r"lower \[fine_tuning\] keep = 0.9, or name runs"):
        run(strict, tmp_path)
    assert "1-consolidate" not in manifests(LocalStore(tmp_path), strict)
    said: list[str] = []
    with pytest.raises(ProofloopError, match="no validation cases"):  # the model is there now
        run(lower, tmp_path, say=said.append)
    store = LocalStore(tmp_path)
    assert published_versions(store, "small-1-consolidate", "all")
    assert get_spec(store, "small-1-consolidate").fine_tuning.keep == 0.0
    assert "changed since the curriculum started: [consolidate] keep = 0.0, was 0.9" in said


def test_a_second_process_on_the_same_curriculum_is_refused(tmp_path: Path):
    spec = small(enhanced=NO_STEPS, generator=NO_STEPS, meta_verifier=NO_STEPS)

    def begin_another(text: str) -> None:
        if text == "stage 1/3: 1-verifier":
            with pytest.raises(
                ConfigError, match=r"another process is working on curriculum 'small'"
            ):
                run(spec, tmp_path)

    said: list[str] = []
    run(spec, tmp_path, say=lambda text: (said.append(text), begin_another(text))[0])
    assert "stage 1/3: 1-verifier" in said


@pytest.mark.parametrize("broker", ["", "amqp://guest:guest@127.0.0.1:1/"])
@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"start": keys.model("typo", "all", 1)}, "no version 'runs/typo/models/all/000001'"),
        ({"cold_start": {"steps": 1, "runs": ["typo"]}}, "has no run 'typo'"),
    ],
)
def test_a_start_that_is_not_in_the_store_can_be_corrected(
    sections: dict[str, Any],
    problem: str,
    broker: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PROOFLOOP_BROKER", broker)
    with pytest.raises(ConfigError, match=problem):
        run(small(**sections), tmp_path)
    assert find_curriculum(LocalStore(tmp_path), "small") is None


def test_a_setting_that_grpo_does_not_know_is_named_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"unknown key kl_coeficient in \[generator.settings\]"):
        run(small(generator={"steps": 1, "settings": {"kl_coeficient": 0.1}}), tmp_path)
    assert not any(tmp_path.glob("runs/*"))


def on_files(folder: Path, **sections: Any) -> CurriculumSpec:
    files = {name: f"{name}.jsonl" for name in ("problems", "proofs", "analyses")}
    fields = small(**sections).model_dump(exclude={"domain", "cold_start", "files"})
    return CurriculumSpec.model_validate({**fields, "files": files, "base": folder})


def write_files(folder: Path) -> None:
    """The example's files, small ones."""
    runpy.run_path(str(EXAMPLE))["make"](folder, problems=120, proofs=80, analyses=80)


def test_a_judge_that_says_the_same_to_everything_stops_the_stage(tmp_path: Path):
    watch = {"window": 1, "same_score": 0.01}
    for _ in range(2):  # and it stays stopped
        with pytest.raises(
            ProofloopError, match=r"stage 1-verifier was stopped: always-\S+ verifier"
        ):
            run(small(watch=watch), tmp_path)
    assert len(list(LocalStore(tmp_path).list(keys.steps("small-1-verifier", "verifier")))) == 1
