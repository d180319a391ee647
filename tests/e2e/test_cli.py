"""The command as a user has it: exit codes, one line on stderr for what is wrong, nothing but data
on stdout.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from scripts.reference.commands import contexts
from typer.testing import CliRunner

from proofloop.bus import open_bus
from proofloop.bus.dead_letters import DeadLetters
from proofloop.bus.topology import Topology
from proofloop.cli import main
from proofloop.cli.app import app
from proofloop.cli.doctor.command import roles_found
from proofloop.cli.doctor.findings import Finding
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import load_runspec
from proofloop.config.settings import load_settings
from proofloop.curriculum.status import freeze
from proofloop.errors import install_hint
from proofloop.runs.create import create_run
from proofloop.runs.dead_letters import DeadLetterRecord
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.events import ProblemPosed, ProofReviewed, encode
from proofloop.schema.records import Label, Proof
from proofloop.store import LocalStore, get_record, put_record
from proofloop.store.model_folders import version_folder
from tests.builders import publish_versions
from tests.integration.servers import Broker, delete_namespace, publish
from tests.waiting import wait_until

COMMAND = str(Path(sys.executable).parent / "proofloop")

SMALL = """
[problems]
domain = "nano"
count = {count}
proofs_per_problem = 2
[engine]
kind = "simulated"
settings = {{ {settings} }}
[models]
generator = "m-1"
verifier = "m-1"
meta_verifier = "m-1"
[labeling]
n = 4
m = 3
k = 2
[flow]
max_waiting_proofs = 4
"""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def data(self) -> Any:
        """What a command that worked printed as JSON."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the machine's own settings, and a store in the test's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROOFLOOP_")}
    return {
        **kept,
        "PROOFLOOP_STORE": str(folder / "data"),
        "PROOFLOOP_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call_together(folder: Path, *commands: tuple[str, ...]) -> list[Said]:
    """Several commands at once, for they mostly import; in their order."""
    running = [start(folder, *arguments) for arguments in commands]
    found = []
    for process in running:
        out, err = process.communicate(timeout=60)
        found.append(Said(process.returncode, out, err))
    return found


def call(folder: Path, *arguments: str) -> Said:
    return call_together(folder, arguments)[0]


Here = Callable[..., Said]


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet_log: None
) -> Callable[[Path], Here]:
    """`here(folder)(*arguments)` is the command in this process, for what ends at once: no
    interpreter to start.
    """

    def at(folder: Path) -> Here:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PROOFLOOP_STORE", str(folder / "data"))
        return call_main

    def call_main(*arguments: str) -> Said:
        monkeypatch.setattr("sys.argv", ["proofloop", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return Said(caught.value.code, *capsys.readouterr())

    return at


def run_file(
    folder: Path, name: str = "small.toml", count: int = 2, settings: str = "", more: str = ""
) -> Path:
    file = folder / name
    file.write_text(SMALL.format(count=count, settings=settings) + more)
    return file


def files_in(folder: Path) -> list[str]:
    """Everything below a folder, but for the store's own room for what is being written."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp" not in path.parts
    )


def check_is_refused(said: Said, *words: str, hint: bool = True) -> None:
    """Exit code 2 and one line on stderr: what, its limit, and a hint unless the limit says all."""
    assert (said.code, said.out) == (2, ""), said
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert ("(hint: " in line) == hint
    for word in words:
        assert word in line
    assert "Traceback" not in said.err


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that is complete."""
    folder = tmp_path_factory.mktemp("done")
    said = call(folder, "run", str(run_file(folder)))
    assert said.code == 0, said.err
    assert said.out.startswith("small: 4 proofs done: ")
    assert len(said.out.splitlines()) == 1
    assert "small: 4/4 proofs done" in said.err
    return folder


@pytest.fixture
def copied(done: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path


# -- bad input
# --------------------------------------------------------------------------------------------------


def test_a_run_file_that_is_wrong_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    good = SMALL.format(count=2, settings="")
    cases: dict[str, tuple[str, tuple[str, ...]]] = {
        "key": (
            "colour = 3\n" + good,
            ("unknown key colour", "key.toml", "known keys: ", "labeling"),
        ),
        "role": (
            good + "[training.labeler]\nsteps = 1\n",
            ("unknown key [training] labeler", "generator, "),
        ),
        "kind": (
            good.replace('"simulated"', '"tritn"').replace('\nverifier = "m-1"', ""),
            ('unknown engine "tritn"', "triton"),
        ),
        "quorum": (
            good.replace("k = 2", "k = 5"),
            ("[labeling]", "k = 5 is more than n = 4", "quorum"),
        ),
        "engine": (
            good.replace('"simulated"', '"tritn"'),
            ('unknown engine "tritn"', "[engine] kind", "simulated"),
        ),
        "setting": (SMALL.format(count=2, settings="latncy_s = 1"), ("latncy_s", "latency_s")),
        "toml": (good + "[", ("is not TOML", "`proofloop init`")),
        "domain": (good.replace('"nano"', '"pico"'), ("pico", "nano")),
        "pack": (
            'prompts = "nowhere"\n' + good,
            (
                "nowhere",
                "math, math-json, math-pairwise, math-points, math-reference, math-rubric, nano",
            ),
        ),
        "count": (
            good.replace("count = 2", "count = 0"),
            ("[problems] count = 0", "greater than or equal to 1"),
        ),
    }
    for name, (text, _) in cases.items():
        (tmp_path / f"{name}.toml").write_text(text)
    for name, (_, words) in cases.items():
        check_is_refused(here(tmp_path)("run", f"{name}.toml"), *words, hint=name != "count")
    check_is_refused(
        call(tmp_path, "run", "none.toml"), "none.toml cannot be read: No such file", "run.toml"
    )
    assert [name for name in files_in(tmp_path) if name != "data"] == sorted(
        f"{name}.toml" for name in cases
    )


def test_a_file_of_the_other_kind_is_refused_with_the_command_that_takes_it(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    run_file(tmp_path)
    (tmp_path / "c.toml").write_text('iterations = 1\n[engine]\nkind = "simulated"\n')
    (tmp_path / "kind.toml").write_text('iterations = 1\n[engine]\nkind = "tritn"\n')
    command = here(tmp_path)
    check_is_refused(
        command("run", "c.toml"), "c.toml is a curriculum file", "`proofloop iterate c.toml`"
    )
    check_is_refused(
        command("iterate", "small.toml"), "small.toml is a run file", "`proofloop run small.toml`"
    )
    refused = command("iterate", "kind.toml")
    check_is_refused(refused, 'unknown engine "tritn"', "simulated, triton")
    assert "openai" not in refused.err
    check_is_refused(
        command("iterate", "none.toml"),
        "none.toml cannot be read",
        "the path of a curriculum file",
    )
    assert [name for name in files_in(tmp_path) if name != "data"] == [
        "c.toml",
        "kind.toml",
        "small.toml",
    ]


def test_a_setting_that_the_trainer_does_not_know_is_refused_before_the_run_begins(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
    run_file(
        tmp_path,
        more="[training.generator]\nsteps = 1\nsettings = { epohcs = 2 }\n",
        settings="want_tokens = true",
    )
    refused = here(tmp_path)("run", "small.toml")
    check_is_refused(
        refused, "unknown key epohcs in [training.generator.settings]", "known keys: ", "epochs"
    )
    assert files_in(tmp_path) == ["data", "small.toml"]


def test_a_missing_or_damaged_model_is_refused_and_nothing_is_written(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
    from proofloop_trainer.nano import base_folder

    shutil.copytree(base_folder(), tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for name, model in (("missing", "no-such-model"), ("damaged", "broken")):
        text = (
            SMALL.format(count=2, settings="")
            .replace('"simulated"', '"local"')
            .replace('"m-1"', f'"{model}"')
        )
        (tmp_path / f"{name}.toml").write_text(text)
    missing, damaged = (here(tmp_path)("run", f"{name}.toml") for name in ("missing", "damaged"))
    check_is_refused(missing, "no-such-model", "config.json is missing", "[models]")
    check_is_refused(damaged, "broken", "cannot be loaded", "[models]")
    assert list(LocalStore(tmp_path / "data").list("runs/")) == []
    assert list(LocalStore(tmp_path / "data").list("specs/")) == []


def test_a_damaged_checkpoint_is_refused_when_a_run_is_resumed(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
    file = run_file(
        tmp_path, more="[training.generator]\nsteps = 2\n", settings="want_tokens = true"
    )
    store, run = LocalStore(tmp_path / "data"), "small"
    create_run(store, load_runspec(file), resume=False)
    checkpoint = keys.checkpoint(run, "generator", 1)
    publish_versions(store, tmp_path / "made", keys.model(run, "generator", 1), checkpoint)
    folder = version_folder(store, tmp_path, checkpoint)
    (folder / "model.bin").write_bytes(b"damaged")
    before = files_in(tmp_path)
    check_is_refused(
        here(tmp_path)("run", "small.toml", "--resume"),
        f"checkpoints/generator/000001/{folder.name}/model.bin has digest",
        "its manifest says",
    )
    assert files_in(tmp_path) == before


def test_a_prompt_pack_that_lacks_a_placeholder_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "templates.py").write_text(official(proof_verification="Grade {statement}."))
    check_is_refused(
        call(tmp_path, "prompts", "import", "templates.py", "--out", "pack"),
        "proof_verification",
        "{proof}",
    )
    assert files_in(tmp_path) == ["templates.py"]


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = run_file(tmp_path)
    (tmp_path / "a-file").write_text("not a folder")
    said = call_together(
        tmp_path,
        ("run", str(file), "--store", "a-file/store"),
        ("runs", "list", "--store", "a-file"),
        ("run", str(file), "--store", "/proc/store"),
    )
    for refused, place in zip(said, ("a-file/store", "a-file", "/proc/store"), strict=True):
        check_is_refused(
            refused, f"cannot write to the store {place}", "choose a folder with write permission"
        )
    assert files_in(tmp_path) == ["a-file", "small.toml"]


def test_a_command_that_only_looks_makes_no_store(tmp_path: Path) -> None:
    looks = (("runs", "list"), ("models", "list", "--run", "r"), ("dead", "list", "--run", "r"))
    for refused in call_together(tmp_path, *((*look, "--store", "nowhere") for look in looks)):
        check_is_refused(
            refused, f"no store at {tmp_path / 'nowhere'}", "--store or PROOFLOOP_STORE"
        )
    assert files_in(tmp_path) == []


def test_what_is_not_there_is_refused_with_what_there_is(
    done: Path, here: Callable[[Path], Here]
) -> None:
    before = files_in(done)
    commands = (
        ("runs", "show", "none"),
        ("runs", "compare", "small", "../small"),
        ("models", "promote", "labeler", "v", "--run", "small"),
        ("models", "promote", "verifier", "v-9", "--run", "small"),
        ("models", "promote", "verifier", "v-9", "--run", "none"),
        ("models", "rollback", "verifier", "--run", "small"),
        ("dead", "list", "--run", "none"),
        ("dead", "list"),
        ("serve", "planner"),
        ("ui", "none"),
        ("ui", "--host", "0.0.0.0"),
        ("prompts", "show", "none"),
        ("prove", " "),
        ("domains", "pose", "--split", "none"),
        ("domains", "check", "What is 1 + 1?", "2"),
    )
    expected = [
        ("no run named 'none'", "the store has: small"),
        ("no run named '../small'", "the store has: small"),
        ("role 'labeler' has no model", "use one of: generator, verifier, meta_verifier"),
        ("verifier has no complete version 'v-9' in run small", "one of m-1"),
        ("no run named 'none'", "the store has: small"),
        ("verifier in run small serves its first version 'm-1'", "nothing to roll back to"),
        ("no run named 'none'", "the store has: small"),
        ("--run is missing", "--run NAME"),
        ("role 'planner' is not installed", "generator, labeler, meta_verifier"),
        ("no run named 'none'", "the store has: small"),
        ("--host 0.0.0.0: other machines could reach the pages", "PROOFLOOP_REVIEW_TOKEN"),
        ("none", "math, math-json, math-pairwise, math-points, math-reference, math-rubric, nano"),
        ("the problem is empty", "path of a text file"),
        ('unknown split "none"', "one of train, validation, test"),
        ("checker of domain 'nano' cannot check proofs of 'What is 1 + 1?'", "whose checker can"),
    ]
    for arguments, words in zip(commands, expected, strict=True):
        check_is_refused(here(done)(*arguments), *words)
    assert files_in(done) == before


# -- run and what there is to see of it
# --------------------------------------------------------------------------------


def test_a_damaged_record_is_made_again_once_it_is_removed(copied: Path) -> None:
    label = min((copied / "data" / "runs" / "small" / "labels").iterdir())
    label.unlink()
    label.write_text("{")
    check_is_refused(
        call(copied, "runs", "show", "small"),
        f"labels/{label.name} is not a valid Label",
        "or delete it",
    )
    label.unlink()
    assert call(copied, "run", "small.toml", "--resume").out.startswith("small: 4 proofs done: ")


def test_a_resumed_run_that_the_store_lacks_starts_with_a_warning(copied: Path) -> None:
    other = copied / "elsewhere"
    resumed = call(copied, "run", "small.toml", "--resume", "--store", str(other))
    assert resumed.code == 0
    assert resumed.err.startswith(f"warning: no run named 'small' in {other}: it starts from")
    again = call(copied, "run", "small.toml", "--resume", "--store", str(other))
    assert "warning" not in again.err


def test_a_run_that_is_there_is_only_gone_on_with_when_asked_to(copied: Path) -> None:
    def files() -> list[str]:
        return [name for name in files_in(copied) if "/times" not in name]

    before = files()
    again, resumed = call_together(copied, ("run", "small.toml"), ("run", "small.toml", "--resume"))
    check_is_refused(again, "run 'small' is already in the store", "--resume")
    assert resumed.code == 0
    assert resumed.out.startswith("small: 4 proofs done: ")
    where_it_lies_now = ["data/runs/small/specs", "data/runs/small/specs/000000.json"]
    assert files() == sorted([*before, *where_it_lies_now])
    run_file(copied, count=1)
    other = call(copied, "run", "small.toml", "--resume")
    check_is_refused(other, "[problems] count = 1, was 2: it may only grow", "another name")
    assert files() == sorted([*before, *where_it_lies_now])


def test_stdout_of_every_look_at_a_run_is_data(done: Path) -> None:
    listed, shown, cost, report, models, dead, table = call_together(
        done,
        ("runs", "list", "--json"),
        ("runs", "show", "small", "--json"),
        ("runs", "cost", "small", "--json"),
        ("runs", "report", "small", "--out", "seen"),
        ("models", "list", "--run", "small", "--json"),
        ("dead", "list", "--run", "small", "--json"),
        ("runs", "list"),
    )
    line = {"run": "small", "type": "run", "state": "complete", "proofs": 4, "labeled": 4}
    line |= {"engine": "simulated", "problems": "nano"}
    assert listed.data() == [line]
    assert shown.data().items() >= line.items()
    assert sum(shown.data()["outcomes"].values()) == 4
    assert shown.data()["dead_letters"] == 0
    spent = {row["of"]: row for row in cost.data()}
    assert {"generator", "verifier", "meta_verifier", "total", "per_problem"} <= set(spent)
    assert spent["generator"]["calls"] == 4
    assert {row["money"] for row in spent.values()} == {None}  # the run has no prices
    assert spent["total"]["calls"] == sum(
        spent[role]["calls"] for role in ("generator", "verifier", "meta_verifier")
    )
    assert models.data() == [
        {"role": role, "version": "m-1", "serves": True}
        for role in ("generator", "verifier", "meta_verifier")
    ]
    assert dead.data() == []
    assert (report.code, report.out) == (0, "seen/report.html\n")
    page = (done / "seen" / "report.html").read_text()
    assert "small" in page and "<script src" not in page
    assert not (done / "seen" / "summary.json").exists()  # it was never measured before and after
    assert "small" in table.out and "complete" in table.out
    assert {said.err for said in (listed, shown, cost, report, models, dead, table)} == {""}


def test_a_run_is_shown_with_the_answers_in_the_order_of_the_pipeline(done: Path) -> None:
    lines = call(done, "runs", "show", "small").out.splitlines()
    roles = [line.split("answers")[0].strip("│ ") for line in lines if " answers " in line]
    assert roles == ["generator", "verifier", "meta verifier"]


def test_a_table_by_problem_and_a_comparison_are_printed(done: Path) -> None:
    table, none, rows, compared, refused = call_together(
        done,
        ("runs", "problems", "small", "--sort", "-accepted", "--limit", "1"),
        ("runs", "problems", "small", "--show", "open", "--search", "absent"),
        ("runs", "problems", "small", "--costs", "--json"),
        ("runs", "compare", "small", "small@m-1", "--json"),
        ("runs", "compare", "small", "small@m-2"),
    )
    assert "self score" in table.out
    assert table.err == "the first 1 of 2 problems; see --limit\n"
    assert none.err == "no problems of small with --show open --search absent\n"
    assert [(row["proofs"], row["counted"], row["cost"]) for row in rows.data()] == [
        (2, 2, None)
    ] * 2
    assert compared.data()["sides"] == ["small", "small@m-1"]
    assert {figure["difference"] for figure in compared.data()["figures"]} == {0.0}
    assert "+0.000 [not measured]" in call(done, "runs", "compare", "small", "small").out
    check_is_refused(refused, "generator version 'm-2'", "versions with labeled proofs: m-1")


def test_a_curriculum_is_listed_among_the_runs_and_commands_for_runs_refuse_it(
    copied: Path, here: Callable[[Path], Here]
) -> None:
    freeze(LocalStore(copied / "data"), spec := CurriculumSpec(name="course"))
    command = here(copied)
    for name in ("measure", "export"):
        check_is_refused(
            command("runs", name, "course"),
            "'course' is a curriculum",
            "`proofloop runs show course`",
        )
    check_is_refused(command("runs", "cost", "none"), "the store has: small, course (a curriculum)")
    costs = call(copied, "runs", "cost", "course", "--json").data()
    assert [row["of"] for row in costs] == [*(stage.name for stage in spec.stages), "total"]
    runs = call(copied, "runs", "list", "--json").data()
    assert [(row["run"], row["type"], row["state"]) for row in runs] == [
        ("small", "run", "complete"),
        ("course", "curriculum", f"0 of {len(spec.stages)} stages"),
    ]


def test_a_run_of_a_problem_file_beside_the_run_file_is_walked_from_anywhere(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "mine.jsonl").write_text(
        '{"question": "Prove that 1 < 2.", "id": "one"}\n{"problem": "Is 2 < 3?"}\n'
    )
    file = run_file(folder)
    file.write_text(file.read_text().replace('domain = "nano"\ncount = 2', 'file = "mine.jsonl"'))
    said = call(tmp_path, "run", str(file.relative_to(tmp_path)))
    assert (said.code, said.out.partition(":")[0]) == (0, "small")
    labels = {
        key.rpartition("/")[2] for key in LocalStore(tmp_path / "data").list(keys.labels("small"))
    }
    assert len(labels) == 4 and {"one-000.json", "one-001.json"} < labels


# -- Ctrl-C
# --------------------------------------------------------------------------------------------------


def test_a_run_that_is_interrupted_ends_cleanly_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    run_file(tmp_path, count=12, settings="latency_s = 0.1, latency_sigma = 0.1")
    store = LocalStore(tmp_path / "data")
    process = start(tmp_path, "run", "small.toml")
    assert wait_until(lambda: len(list(store.list(keys.labels("small")))) >= 3, 60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("stopped: ") and "--resume" in err.splitlines()[-1]
    assert "stopping: " in err and "Traceback" not in err
    before = labels_written(store)
    assert 3 <= len(before) < 24
    resumed = call(tmp_path, "run", "small.toml", "--resume")
    assert (resumed.code, resumed.out[:24]) == (0, "small: 24 proofs done: a"), resumed.err
    after = labels_written(store)
    assert len(after) == 24
    assert after.items() >= before.items()  # no label was written again
    labels = [get_record(store, key, Label) for key in after]
    assert len({label.proof_id for label in labels}) == 24


def labels_written(store: LocalStore) -> dict[str, int]:
    return {key: store.path(key).stat().st_mtime_ns for key in store.list(keys.labels("small"))}


# -- prove
# --------------------------------------------------------------------------------------------------


def test_a_person_grades_what_a_run_left_undecided_and_every_look_at_it_says_so(
    copied: Path,
) -> None:
    store = LocalStore(copied / "data")
    label = get_record(store, next(store.list(keys.labels("small"))), Label)
    proof = "nobody-000"
    undecided = {
        "proof_id": proof,
        "outcome": "undecided",
        "kind": "undecided",
        "score": None,
        "critiques": (),
    }
    put_record(store, keys.label("small", proof), label.model_copy(update=undecided))
    written = get_record(store, keys.proof("small", label.proof_id), Proof)
    put_record(store, keys.proof("small", proof), written.model_copy(update={"id": proof}))
    page = start(copied, "ui", "--port", "0")
    assert page.stdout is not None
    ready = json.loads(page.stdout.readline())
    assert (ready["ready"], ready["store"]) == ("ui", str(store))
    address = f"{ready['url']}grade/runs/small/proofs/{proof}"
    headers = {"Origin": ready["url"].rstrip("/"), "Cookie": "grader=Emmy%20Noether"}
    assert httpx.post(address, data={"score": "0"}, headers=headers).status_code == 303
    page.send_signal(signal.SIGINT)
    _, err = page.communicate(timeout=60)
    assert page.returncode == 0, err
    assert find_label(store, "small", proof) == label.model_copy(
        update={
            **undecided,
            "outcome": "rejected",
            "kind": "rejected_upheld",
            "score": 0.0,
            "by": "Emmy Noether",
            "grade": 0,
        }
    )
    shown, reported, exported, alone, analyses = call_together(
        copied,
        ("runs", "show", "small", "--json"),
        ("runs", "report", "small"),
        ("runs", "export", "small"),
        ("runs", "export", "small", "--people"),
        ("runs", "export", "small", "--analyses"),
    )
    assert sum(shown.data()["outcomes"].values()) == 5
    assert "labeled by Emmy Noether" in (copied / reported.out.strip()).read_text()
    rows, (row,), critiques = (
        [json.loads(line) for line in said.out.splitlines()] for said in (exported, alone, analyses)
    )
    assert (row["solution"], row["score"], row["by"]) == (written.solution, 0.0, "Emmy Noether")
    assert row in rows and len(rows) > 1
    assert {each["quality"] for each in critiques} <= {None}
    check_is_refused(
        call(copied, "runs", "export", "small", "--best", "--analyses"), "leave one of them out"
    )


def test_a_report_replaces_an_earlier_one_and_no_other_file(copied: Path) -> None:
    report = ("runs", "report", "small", "--out", "seen")
    assert [call(copied, *report).code for _ in range(2)] == [0, 0]
    (copied / "seen" / "summary.json").write_text("the figures of another run")
    assert call(copied, *report).code == 0
    assert not (copied / "seen" / "summary.json").exists()
    for name in ("report.html", "summary.json"):
        (copied / name).write_text("mine")
        refused = call(copied, "runs", "report", "small", "--out", ".")
        check_is_refused(refused, f"{name} exists and is not of a report", "--out")
        assert (copied / name).read_text() == "mine"
        (copied / name).unlink()


def test_a_problem_is_proved_once_and_read_from_the_store_after_that(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    file = run_file(tmp_path, settings=f'call_log = "{asked}"')
    text = "Prove that $1 <\n\to 2$."  # a tab: JSON would suggest a LaTeX command
    (tmp_path / "problem.txt").write_text(f"{text}\n")
    arguments = ("prove", "problem.txt", "--using", str(file), "--proofs", "2", "--json")
    first = call(tmp_path, *arguments)
    found = first.data()
    assert len(found) == 2
    for proof in found:
        assert proof["proof"].startswith("Simulated proof")
        assert proof["outcome"] in ("accepted", "rejected", "undecided")
        assert proof["critiques"] and {"score", "outcome", "confirmed", "analysis"} == set(
            proof["critiques"][0]
        )
    again, other = call_together(
        tmp_path, arguments, ("prove", "Prove that 2 < 3.", "--using", str(file), "--json")
    )
    calls = files_in(asked)
    page = call(tmp_path, "prove", text, "--using", str(file), "--proofs", "2")
    assert files_in(asked) == calls  # no engine is opened
    assert again.data() == found
    assert len(other.data()) == 1
    assert page.code == 0
    assert page.out.count("Score: ") == 2 and "Critique 1 (score " in page.out
    assert len(list((tmp_path / "data" / "runs").iterdir())) == 2  # a run a problem


def test_a_long_problem_is_proved_and_no_escape_of_a_model_reaches_the_terminal(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    arguments = (
        "prove",
        "Prove that 1 < 2, " + "and that 1 < 2, " * 20,
        "--using",
        str(run_file(tmp_path)),
    )
    assert here(tmp_path)(*arguments).code == 0
    (written,) = (tmp_path / "data").rglob("proof.json")
    written.write_text(
        written.read_text().replace("Simulated proof", "Simulated \\u001b[2J\\u202eproof")
    )
    page = here(tmp_path)(*arguments)
    assert page.code == 0, page.err
    assert page.out.startswith("Simulated \ufffd[2J⟨U+202E⟩proof")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 300, f"there is no file '{'x' * 60}'"),
        ("latin-1.txt", "latin-1.txt cannot be read: 'utf-8' codec"),
    ],
)
def test_a_problem_that_cannot_be_read_is_refused(
    tmp_path: Path, here: Callable[[Path], Here], text: str, words: str
) -> None:
    (tmp_path / "latin-1.txt").write_bytes("Pour tout réel".encode("latin-1"))
    check_is_refused(here(tmp_path)("prove", text), words)


# -- models
# --------------------------------------------------------------------------------------------------


def serving(folder: Path) -> str:
    rows = call(folder, "models", "list", "--run", "small", "--json").data()
    (version,) = (row["version"] for row in rows if row["role"] == "verifier" and row["serves"])
    return str(version)


def test_versions_are_listed_promoted_and_rolled_back(copied: Path) -> None:
    store = LocalStore(copied / "data")
    one, two = (keys.model("small", "verifier", step) for step in (1, 2))
    publish_versions(store, copied / "made", one, two)
    rows = call(copied, "models", "list", "--run", "small", "--json").data()
    assert [(row["version"], row["serves"]) for row in rows if row["role"] == "verifier"] == [
        ("m-1", True),
        (one, False),
        (two, False),
    ]
    for version in (one, two):
        promoted = call(copied, "models", "promote", "verifier", version, "--run", "small")
        assert (promoted.code, promoted.out, promoted.err) == (
            0,
            f"verifier of small serves {version}\n",
            "",
        )
    assert serving(copied) == two
    back = call(copied, "models", "rollback", "verifier", "--run", "small")
    assert (back.code, back.out) == (0, f"verifier of small serves {one}\n")
    assert serving(copied) == one
    (version_folder(store, copied, two) / "model.bin").write_bytes(b"damaged")
    check_is_refused(
        call(copied, "models", "promote", "verifier", two, "--run", "small"),
        "/model.bin has digest",
    )
    assert serving(copied) == one


# -- dead letters
# --------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_replayed_and_dropped(copied: Path) -> None:
    store = LocalStore(copied / "data")
    (proof_key, *_) = [
        key for key in store.list(keys.proofs("small")) if key.endswith("/proof.json")
    ]
    proof_id = proof_key.split("/")[-2]
    event = encode(ProofReviewed(run_id="small", proof_id=proof_id, index=-1)).decode()
    for queue, body in (("meta_verifier", event), ("verifier", "no event")):
        letter = DeadLetterRecord(queue=queue, reason=f"a bug in {queue}", body=body, deliveries=4)
        put_record(store, f"{keys.dead_letters('small')}{queue}-1.json", letter)
    listed = call(copied, "dead", "list", "--run", "small", "--json").data()
    assert [(letter["queue"], letter["reason"]) for letter in listed] == [
        ("meta_verifier", "a bug in meta_verifier"),
        ("verifier", "a bug in verifier"),
    ]
    gone = encode(ProofReviewed(run_id="small", proof_id="gone", index=-1)).decode()
    DeadLetterRecord(
        queue="meta_verifier", reason="it was not there yet", body=gone, deliveries=4
    ).keep(store, "small")
    with store.only_here("small"):
        check_is_refused(
            call(copied, "dead", "replay", "--run", "small"),
            "another process is working on 'small'",
        )
    replayed = call(copied, "dead", "replay", "--run", "small")
    assert (replayed.code, replayed.out) == (0, "2 messages delivered again, 1 failed again\n"), (
        replayed.err
    )
    left = call(copied, "dead", "list", "--run", "small", "--json").data()
    assert [letter["body"] for letter in left] == [gone, "no event"]
    assert "the store lacks" in left[0]["reason"]
    dropped = call(copied, "dead", "drop", "--run", "small")
    assert (dropped.code, dropped.out) == (0, "2 dead letters dropped\n")
    assert call(copied, "dead", "list", "--run", "small", "--json").data() == []


def test_letters_that_the_budget_left_undelivered_stay(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    command, file = here(tmp_path), run_file(tmp_path, more="[budget]\ntokens = 1\n")
    assert command("run", str(file)).code == 4
    event = encode(
        ProblemPosed(run_id="small", problem_id="0", proof_id="0-000", group="0")
    ).decode()
    letter = DeadLetterRecord(queue="generator", reason="a bug", body=event, deliveries=4)
    letter.keep(LocalStore(tmp_path / "data"), "small")
    said = command("dead", "replay", "--run", "small")
    assert (said.code, said.out) == (4, "")
    assert "stopped: small: [budget] tokens = 1 is used up" in said.err and "--resume" in said.err
    assert [
        each["body"] for each in command("dead", "list", "--run", "small", "--json").data()
    ] == [event]


def test_a_problem_whose_budget_is_used_up_is_proved_again_with_more(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    command = here(tmp_path)
    file = run_file(tmp_path, more="[budget]\ntokens = 1\n")
    arguments = ("prove", "Prove that 1 < 2.", "--using", str(file))
    said = command(*arguments)
    assert (said.code, said.out) == (4, "")
    assert "or `prove` again" in said.err
    run_file(tmp_path, more="[budget]\ntokens = 1_000_000\n")
    assert command(*arguments).code == 0
    assert len(list((tmp_path / "data" / "runs").iterdir())) == 1


def test_dead_letters_on_the_broker_and_in_the_store_are_both_seen(
    copied: Path, here: Callable[[Path], Here], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_here, namespace = here(copied), f"test-{copied.parent.name}"
    monkeypatch.setenv("PROOFLOOP_BROKER", broker.url)
    monkeypatch.setenv("PROOFLOOP_NAMESPACE", namespace)
    event = ProofReviewed(run_id="small", proof_id="gone", index=-1)
    DeadLetterRecord(
        queue="verifier", reason="a bug", body=encode(event).decode(), deliveries=4
    ).keep(LocalStore(copied / "data"), "small")
    open_bus(load_settings()).close(grace_s=5)  # makes the queues
    publish(broker.url, Topology(namespace).dead_queue("meta_verifier").name, encode(event))
    try:
        letters = DeadLetters(broker.url, namespace=namespace)
        assert wait_until(lambda: any(depth.dead for depth in letters.depths()), 60)
        found = call_here("dead", "list", "--run", "small", "--json").data()
        assert [letter["queue"] for letter in found] == ["meta_verifier", "verifier"]
        assert call_here("dead", "list", "--run", "none", "--json").data() == []
        assert call_here("runs", "show", "small", "--json").data()["dead_letters"] == 2
        assert call_here("runs", "report", "small", "--out", "page").code == 0
        assert "2 dead letters" in (copied / "page" / "report.html").read_text()
        assert call_here("dead", "drop", "--run", "small").out == "2 dead letters dropped\n"
        monkeypatch.setenv("PROOFLOOP_BROKER", "amqp://127.0.0.1:1")
        shown = call_here("runs", "show", "small", "--json")
        assert shown.data()["dead_letters"] == 0
        assert "only the dead letters in the store are counted" in shown.err
    finally:
        delete_namespace(broker.url, namespace)


# -- prompts, nano, doctor, serve
# --------------------------------------------------------------------------------------


def official(**changes: str) -> str:
    """A file in the form of the official one."""
    templates = {
        "proof_generation": "## Solution\n...\n\n## Self Evaluation\n...\n\nMy score:"
        " \\\\boxed{{}}\n\n{question}",
        "proof_verification": "My score: \\\\boxed{{}}\n\nGrade {statement}: {proof}",
        "meta_verification": "My rating: \\\\boxed{{}}\n\nRate {rating} of {proof} for {statement}",
        "proof_refinement": "{instruction}\n\n{proofs_to_refine}",
        **changes,
    }
    entries = "\n".join(f'    "{name}": """{text}""".strip(),' for name, text in templates.items())
    return f"math_templates = {{\n{entries}\n}}\n"


def test_a_pack_is_imported_and_then_shown_and_used(tmp_path: Path) -> None:
    (tmp_path / "templates.py").write_text(official() + "raise SystemExit('it was executed')\n")
    made = call(tmp_path, "prompts", "import", "templates.py", "--out", "pack")
    assert (made.code, "\nnote: " in made.err) == (0, True)  # unlike ours it does not fence
    assert made.out.startswith("pack: ")
    (tmp_path / "elsewhere").mkdir()
    file = run_file(tmp_path / "elsewhere")
    said = made.out.partition("use it with ")[2].partition(" in a run file")[0]
    file.write_text(f"{said}\n" + file.read_text())
    shown, built_in, ran = call_together(
        tmp_path, ("prompts", "show", "pack"), ("prompts", "show"), ("run", str(file))
    )
    assert shown.code == built_in.code == ran.code == 0, ran.err
    assert "Grade {question}: {proof}" in shown.out
    assert [line.split()[1] for line in built_in.out.splitlines() if line.startswith("=== ")] == [
        "proof_generation",
        "proof_verification",
        "meta_verification",
        "proof_refinement",
        "phrases",
    ]
    assert 'evaluation_score = "My score:"' in shown.out


def test_nano_problems_are_posed_as_a_problem_file_and_proofs_are_checked(tmp_path: Path) -> None:
    question = "Modulo 10, start at 2. a + 3. b * 4. Show that the result is 0."
    posed, test, right, wrong, short = call_together(
        tmp_path,
        ("domains", "pose", "--count", "2000", "--seed", "5"),
        ("domains", "pose", "--count", "4", "--seed", "5", "--split", "test"),
        ("domains", "check", question, "a 2 + 3 = 5\nb 5 * 4 = 0"),
        ("domains", "check", question, "a 2 + 3 = 6\nb 6 * 4 = 4"),
        ("domains", "check", question, "b 5 * 4 = 0"),
    )
    problems = [json.loads(line) for line in posed.out.splitlines()]
    assert len({problem["id"] for problem in problems}) == 2000
    assert not {problem["id"] for problem in problems} & {
        json.loads(line)["id"] for line in test.out.splitlines()
    }
    assert right.data() == {"score": 1.0, "defects": []}
    assert wrong.data() == {
        "score": 0.0,
        "defects": [{"step": "a", "kind": "miscalculated", "detail": ""}],
    }
    omission = {"step": "a", "kind": "missing", "detail": "2 + 3 = 5, then b 5"}
    assert short.data() == {"score": 0.5, "defects": [omission]}
    assert {said.err for said in (posed, test, right, wrong, short)} == {""}


def test_doctor_looks_at_the_machine_and_at_a_run_file_or_a_curriculum(
    tmp_path: Path, here: Callable[[Path], Here]
) -> None:
    good, bad = run_file(tmp_path), run_file(tmp_path, "bad.toml")
    bad.write_text(bad.read_text().replace("k = 2", "k = 9"))
    (tmp_path / "c.toml").write_text(
        'start = "nano-base"\niterations = 1\n[engine]\nkind = "simulated"\nsettings = {'
        " want_tokens = true }\n"
    )
    (tmp_path / "wrong.toml").write_text(
        (tmp_path / "c.toml").read_text() + "[verifier]\nsettings = { speed = 1 }\n"
    )
    away = run_file(tmp_path, "away.toml", settings="failure_share = 1.0")
    files = ([], [str(good)], [str(bad)], ["c.toml"], ["wrong.toml"], [str(away)])
    machine, healthy, broken, course, wrong, silent = (
        here(tmp_path)("doctor", *file, "--json") for file in files
    )
    found = {finding["what"]: finding for finding in machine.data()}
    if find_spec("proofloop_trainer"):
        assert ": training uses the " in found["torch"]["found"]
    assert {"python", "disk", "roles", "engines", "store", "broker", "prompt packs"} <= set(found)
    assert found["engines"]["found"].startswith("local, openai, simulated")
    checked = {finding["what"]: finding["state"] for finding in healthy.data()}
    assert (checked["run file"], checked["engine"]) == ("ok", "ok")
    checked = {
        finding["what"]: finding["found"] for finding in course.data() if finding["state"] == "ok"
    }
    assert checked["curriculum"] == "c: engine simulated, 8 stages from nano-base"
    assert checked["engine"].startswith("every model answered")
    if find_spec("proofloop_trainer"):  # it knows what a step of GRPO can be told
        (finding,) = [finding for finding in json.loads(wrong.out) if finding["state"] == "broken"]
        assert finding["what"] == "curriculum" and "speed" in finding["found"]
    assert broken.code == 1
    (finding,) = [finding for finding in json.loads(broken.out) if finding["state"] == "broken"]
    assert finding["what"] == "run file"
    assert "k = 9 is more than n = 4" in finding["found"] and finding["hint"]
    checked = {finding["what"]: finding["state"] for finding in json.loads(silent.out)}
    assert (checked["run file"], checked["engine"]) == ("ok", "broken")
    store = LocalStore(tmp_path / "data")
    assert [*store.list("runs/"), *store.list("specs/")] == []


def test_doctor_asks_for_no_role_that_a_broker_may_serve() -> None:
    assert roles_found(["verifier"], has_broker=True) == Finding("roles", "ok", "verifier")
    hint = (
        "in a clone of proofloop: pip install ./serving ./services/meta_verifier ./services/trainer"
    )
    alone = roles_found(["generator", "labeler", "verifier"], has_broker=False)
    assert alone == Finding("roles", "warning", "generator, labeler, verifier", hint)
    assert roles_found([], has_broker=True).state == "warning"
    assert install_hint("[cluster]").endswith("pip install './shared[cluster]'")


HELP = {
    "": "demo init run iterate serve ui prove proof plan doctor runs models grades dead prompts"
    " domains train nano --verbose --version",
    "demo": "--out --seed --quick",
    "run": "FILE --store --resume --local",
    "serve": "ROLE --concurrency --store --check",
    "ui": "[RUN] --host --port --spot-checks --analyses --overlap --store",
    "grades": "export agreement",
    "grades export": "RUN --store",
    "grades agreement": "RUN --analyses --store --json",
    "proof": "RUN [ID] --raw --store --json",
    "prove": "PROBLEM --using --proofs --store --json",
    "plan": "[FILE] --from --problems-per-hour --tokens-per-second --gpus --values --json",
    "doctor": "[FILE] --wait --services --store --json",
    "runs": "list show steps measure report cost export search",
    "runs search": "RUN --store --json",
    "runs problems": "RUN --sort --show --search --costs --limit --store --json",
    "runs compare": "A B --limit --store --json",
    "init": "FOLDER --engine --url --model",
    "judge": "DATA --using --column --scale --attack --knock-out --plan --name --rows --page"
    " --store --json",
    "evaluate": "SUITE --using --proofs --critiques --category --plan --name --store --json",
    "runs steps": "RUN [STAGE] --tensorboard --store --json",
    "runs export": "RUN --people --scored --critiques --best --analyses --format --out --store",
    "iterate": "FILE --store --seed",
    "runs measure": "RUN --store --json",
    "runs list": "--store --json",
    "runs show": "RUN --store --json",
    "runs report": "RUN --out --store",
    "runs cost": "RUN --prices --store --json",
    "models": "list promote rollback",
    "models list": "--run --store --json",
    "models promote": "ROLE VERSION --run --if-run-exists --store",
    "models rollback": "ROLE --run --store",
    "dead": "list replay drop",
    "dead list": "--run --store --json",
    "dead replay": "--run --store",
    "dead drop": "--run --store",
    "prompts": "show import",
    "prompts show": "[PACK]",
    "prompts import": "FILE --out",
    "train": "export-slime",
    "train export-slime": "RUN STAGE --out --store",
    "domains": "list pose check",
    "domains list": "--json",
    "domains pose": "--domain --count --split --seed",
    "domains check": "QUESTION SOLUTION --domain",
    "nano": "train",
    "nano train": "--out --seed --threads",
}


def test_a_run_of_which_nothing_can_be_read_says_so_early_and_ends_with_code_3(
    tmp_path: Path,
) -> None:
    file = run_file(tmp_path, count=6, settings="malformed_share = 1.0")
    said = call(tmp_path, "run", file.name)
    assert said.code == 3
    assert "warning: 10 of the first 10 answers of the generator were not read" in said.err
    assert "error: none of the 12 answers of the generator was readable" in said.err
    again = call(tmp_path, "run", file.name, "--resume")
    assert again.code == 3 and "warning:" not in again.err  # once a role and run
    example = re.search(r"`proofloop proof small (\S+)`", said.err)
    assert example is not None
    printed = call(tmp_path, "proof", "small", example[1])
    assert printed.code == 0 and "--- Raw answer" in printed.out


@pytest.mark.usefixtures("quiet_log")
def test_help_of_every_command_names_its_arguments_and_options() -> None:
    """In this process: what is asked of is the tree of commands, not the start of an
    interpreter.
    """
    names = [context.command_path.partition(" ")[2] for context in contexts()]
    assert sorted(HELP) == sorted(names)
    for command, words in HELP.items():
        result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0
        missing = [word for word in words.split() if word.lower() not in result.output.lower()]
        assert not missing, (command, missing, result.output)


def test_a_command_that_does_not_exist_is_exit_code_2_and_no_command_shows_the_help(
    tmp_path: Path,
) -> None:
    unknown, none, option = call_together(
        tmp_path, ("fly",), ("--help",), ("run", "--colour", "x.toml")
    )
    assert (unknown.code, none.code, option.code) == (2, 0, 2)
    assert "fly" in unknown.err and "--colour" in option.err
    assert "Start with `proofloop demo`" in none.out
    assert (unknown.out, option.out, none.err) == ("", "", "")
