"""The curriculum on the shipped nano model: stopped anywhere, it continues with the identical next
step.
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
from proofloop.config.run_file import RunSpec
from proofloop.curriculum.status import all_figures, manifests
from proofloop.engine.base import Call, GenerationRequest
from proofloop.errors import ConfigError, ProofloopError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES, ModelRole, TrainingBatch, TrainingSample
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop_trainer.curriculum import labeling, stages
from proofloop_trainer.curriculum.cases import CaseFile
from proofloop_trainer.curriculum.kept import KeptAnswers
from proofloop_trainer.curriculum.workflow import iterate
from proofloop_trainer.nano.tokenizer import build_tokenizer

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
    spec: CurriculumSpec,
    root: Path,
    *,
    kill_at: str = "",
    say: Callable[[str], None] | None = None,
    engines: Engines | None = None,
) -> LocalStore:
    store = LocalStore(root)
    engines = engines or Engines(store, root / "cache")

    def kill(text: str) -> None:
        if kill_at and text.startswith(kill_at):
            raise Killed(text)

    try:
        iterate(spec, store, engines, threading.Event(), say or kill)
    finally:
        engines.close()
    return store


def samples(store: LocalStore, step: int) -> tuple[TrainingSample, ...]:
    return get_record(store, keys.batch("small", "1-verifier", step), TrainingBatch).samples


def parts_by_role(store: LocalStore, stage: str) -> dict[str, bool]:
    """What a stage's first batch is about (D_v: verifier, D_mv: meta_verifier), and whether R_meta
    rewards it.
    """
    found: dict[str, bool] = {}
    for sample in get_record(store, keys.batch("small", stage, 0), TrainingBatch).samples:
        role = sample.group.rpartition("-")[0]
        found[role] = found.get(role, False) or "meta" in sample.reward_parts
    return found


def test_a_killed_curriculum_ends_with_the_same_weights_as_one_that_ran_through(tmp_path: Path):
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
    file = f"{keys.model('small', '1-verifier', 3)}/model.safetensors"
    assert resumed.get(file) == through.get(file)
    for step in range(3):
        assert samples(resumed, step) == samples(through, step)


def test_finished_stages_keep_their_results_alone(tmp_path: Path):
    """No checkpoint and no version of a step on the way; what a killed process could not delete
    goes too.
    """
    spec = small(generator=NO_STEPS)
    with pytest.raises(Killed):
        run(spec, tmp_path, kill_at="1-enhanced: step 1/")
    store = LocalStore(tmp_path)
    kept = [keys.checkpoint("small", "1-enhanced", 1)]
    assert folders(store, keys.all_checkpoints("small")) == kept
    # As a process leaves it that is killed before it deletes.
    left = keys.checkpoint("small", "1-verifier", 2)
    store.put_if_absent(f"{left}/model.safetensors", b"weights")
    run(spec, tmp_path)
    assert folders(store, keys.all_checkpoints("small")) == []
    done = manifests(store, spec)
    results = {
        version
        for each in done.values()
        for version in (each.version, *each.serves.values())
        if version
    }
    assert folders(store, keys.all_models("small")) == sorted(results - {spec.start})
    assert {each.version for each in done.values()} > {keys.model("small", "1-verifier", 3)}


def test_a_refreshed_meta_verifier_leaves_no_checkpoint_behind(tmp_path: Path):
    enhanced = {
        "steps": 3,
        "groups": 4,
        "samples": 4,
        "meta_groups": 1,
        "refresh": 1,
        "refresh_steps": 1,
    }
    with pytest.raises(Killed):
        run(small(verifier=NO_STEPS, enhanced=enhanced), tmp_path, kill_at="1-enhanced: step 3/")
    store = LocalStore(tmp_path)
    assert folders(store, keys.all_checkpoints("small")) == [
        keys.checkpoint("small", "1-enhanced", 3)
    ]
    assert folders(store, keys.models("small", "1-enhanced")) == [
        keys.model("small", "1-enhanced", 3)
    ]


def test_what_memory_the_engine_uses_may_change_in_the_midst_of_labeling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before, after = (
        small(**NO_TRAINING, engine={"settings": {"max_batch": batch}}) for batch in (48, 24)
    )
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(labeling, "decided", _killed)
        run(before, tmp_path)
    assert run(after, tmp_path).exists(keys.stage("small", "1-label"))


def test_a_consolidation_that_is_taken_up_again_asks_for_no_answer_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = small(verifier=NO_STEPS, meta_verifier=NO_STEPS, enhanced=NO_STEPS, generator=NO_STEPS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(stages, "fine_tune", _killed)
        run(spec, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "_asked", _killed)
        assert "1-consolidate" in manifests(run(spec, tmp_path), spec)


def _killed(*_: object) -> None:
    raise Killed


def folders(store: LocalStore, prefix: str) -> list[str]:
    return sorted({key.rpartition("/")[0] for key in store.list(prefix)})


KILLED_IN_A_ROLLOUT = """
import os, signal, sys
from pathlib import Path
from proofloop_trainer.curriculum import asking, kept
from tests.integration import test_curriculum as here

words = sys.argv[2:]

def say(text):
    if text.startswith(words[0]) and words.pop(0) and not words:
        os.kill(os.getpid(), signal.SIGKILL)

kept.EVERY_S, asking.IN_FLIGHT = 0.0, 4
here.run(here.small(**here.ONE_STAGE), Path(sys.argv[1]), say=say)
"""
ONE_STAGE = {
    "meta_verifier": NO_STEPS,
    "enhanced": NO_STEPS,
    "consolidate": {"prompts": 1, "samples": 1},
}


class Counted(Engines):
    """Engines that remember which calls they were asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []

    def of(self, spec: RunSpec, role: ModelRole) -> Counted:
        self._engine = super().of(spec, role)
        return self

    def submit(self, request: GenerationRequest) -> Call:
        self.asked.append(request.id)
        return self._engine.submit(request)


@pytest.mark.parametrize(
    ("stage", "step", "last_words"),
    [
        ("1-verifier", 1, ("1-verifier: step 1/3", "1-verifier: verifier answers: 8/12")),
        # The proofs and their scores are there.
        (
            "1-generator",
            0,
            ("1-generator: meta-verifier answers",),
        ),
    ],
)
def test_sigkill_in_the_midst_of_a_rollout_costs_no_answer_that_was_kept(
    tmp_path: Path, stage: str, step: int, last_words: tuple[str, ...]
):
    """Of a step's answers and of its judges'; the batch is as if nothing had happened, and nothing
    is left behind.
    """
    spec = small(**ONE_STAGE)
    through = run(spec, tmp_path / "through")
    command = [sys.executable, "-c", KILLED_IN_A_ROLLOUT, str(tmp_path / "killed"), *last_words]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env={**os.environ, **ONE_THREAD})
    assert done.returncode == -signal.SIGKILL
    store = LocalStore(tmp_path / "killed")
    assert not store.exists(keys.batch("small", stage, step))
    objects = (
        get_record(store, key, KeptAnswers) for key in store.list(keys.answers("small", stage))
    )
    stored = {name.split()[-1] for each in objects for name in each.answers}
    assert len(stored) >= 8
    engines = Counted(store, tmp_path / "cache")
    run(spec, tmp_path / "killed", engines=engines)
    assert len(stored & set(engines.asked)) == 0
    batches = (
        get_record(each, keys.batch("small", stage, step), TrainingBatch).samples
        for each in (store, through)
    )
    resumed, whole = (
        [(s.key, s.tokens.completion_ids, s.reward) for s in samples] for samples in batches
    )
    assert resumed == whole
    assert list(store.list(keys.all_answers("small"))) == []


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_no_weight(tmp_path: Path):
    """Real processes: killed in the cold start's successor, between its steps, and while the next
    stage draws.
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
        _toml(spec.model_dump(exclude={"base", "gate", "watch", "prices", "harder", "files"})),
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
    weights = [key for key in through.list("runs/small/models/") if key.endswith(".safetensors")]
    assert len(weights) == 3  # the verifier, the meta-verifier, the consolidated model
    assert [killed.get(key) for key in weights] == [through.get(key) for key in weights]


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
    store = run(
        small(iterations=2, labels=labels, consolidate={"prompts": 8, "samples": 2}), tmp_path
    )
    writers = [
        find_spec(store, f"small-1-label-nano{which}").models.generator
        for which in ("", "-earlier")
    ]
    assert writers == [keys.model("small", "1-generator", 1), "nano-base"]
    labeled = {
        proof.question
        for proof in get_record(store, keys.cases("small", "labels-1"), CaseFile).proofs
    }
    answers = get_record(store, keys.batch("small", "2-enhanced", 0), TrainingBatch).samples
    prompts = build_tokenizer().batch_decode([answer.tokens.prompt_ids for answer in answers])
    of_labels = sum(any(question in prompt for question in labeled) for prompt in prompts)
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


def test_a_consolidation_without_a_good_answer_is_no_version(tmp_path: Path):
    with pytest.raises(
        ProofloopError,
        match=r"no answer reaches \[consolidate\] keep = 0.99; the best reward is 0\n",
    ):
        run(small(**NO_TRAINING, sampling=ALL_TOO_SHORT), tmp_path)


def test_a_consolidation_that_kept_nothing_goes_on_with_a_lower_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    strict, lower = (
        small(**NO_TRAINING, consolidate={"prompts": 4, "samples": 2, "keep": keep})
        for keep in (0.9, 0.5)
    )
    with (
        monkeypatch.context() as patch,
        pytest.raises(ProofloopError, match=r"lower keep in the file and run the command again"),
    ):
        patch.setattr(stages, "_asked", lambda *_: [])
        run(strict, tmp_path)
    said: list[str] = []
    assert "1-consolidate" in manifests(run(lower, tmp_path, say=said.append), lower)
    assert "changed since the curriculum started: [consolidate] keep = 0.5, was 0.9" in said


def test_a_second_process_on_the_same_curriculum_is_refused(tmp_path: Path):
    spec = small(enhanced=NO_STEPS, generator=NO_STEPS, meta_verifier=NO_STEPS)

    def begin_another(text: str) -> None:
        if text == "stage 1/3: 1-verifier":
            with pytest.raises(ConfigError, match=r"another process is working on 'small'"):
                run(spec, tmp_path)

    said: list[str] = []
    run(spec, tmp_path, say=lambda text: (said.append(text), begin_another(text))[0])
    assert "stage 1/3: 1-verifier" in said


def test_a_consolidation_counts_answers_by_role_and_warns_of_a_role_with_none(
    tmp_path: Path,
):
    told: list[str] = []
    spec = small(
        **NO_TRAINING,
        sampling={**dict.fromkeys(("generator", "verifier"), ANSWER), "meta_verifier": TOO_SHORT},
    )
    figures = manifests(run(spec, tmp_path, say=told.append), spec)["1-consolidate"].figures
    kept = {role: figures[f"answers {role}"] for role in MODEL_ROLES}
    assert sum(kept.values()) == figures["answers"] > 0 == kept["meta_verifier"]
    warned = [text.partition(" reaches")[0] for text in told if text.startswith("warning: ")]
    assert warned[-1] == "warning: 1-consolidate: no answer of the meta_verifier"


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
    assert len(list(LocalStore(tmp_path).list(keys.steps("small", "1-verifier")))) == 1
