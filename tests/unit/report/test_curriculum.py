"""The page of a curriculum: its stages, its learning curves and what was measured, however far it
is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import Result
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.config.curriculum_file import CurriculumSpec, EnhancedStage, Files, VerifierStage
from proofloop.config.run_file import Prices
from proofloop.curriculum.status import (
    GateReport,
    StageManifest,
    add_run,
    finish,
    freeze,
    put_figures,
)
from proofloop.errors import ConfigError
from proofloop.runs.figures import Figure
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, TrainingStep
from proofloop.store import LocalStore, put_record
from tests.builders import visible

STEPS = 16
"""So many that a moving mean is drawn."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def begin(store: LocalStore, **fields: object) -> CurriculumSpec:
    spec = CurriculumSpec.model_validate({"name": "course", "iterations": 1, **fields})
    freeze(store, spec)
    return spec


def put_steps(
    store: LocalStore, stage: str, role: ModelRole = "verifier", number: int = STEPS
) -> None:
    run = f"course-{stage}"
    add_run(store, "course", run)
    for step in range(1, number + 1):
        figures = {
            "mean_reward": step / 20,
            "kl": step / 1000,
            "entropy": 0.5,
            "completion_length": 9.0,
            "samples": 8,
        }
        record = TrainingStep(
            run_id=run,
            role=role,
            step=step,
            version=keys.model(run, role, step),
            sampled_by=("base",),
            figures=figures,
            reward_parts={"format": 1.0, "score": step / 20},
        )
        put_record(store, keys.step(run, role, step), record)


def end(
    store: LocalStore,
    spec: CurriculumSpec,
    stage: str,
    *,
    promoted: bool = True,
    figure: str = "Pass@1",
) -> None:
    gate = GateReport(
        figure=figure, before=0.75, after=0.9, difference=-0.15, noise=0.0375, promoted=promoted
    )
    version = keys.model(f"course-{stage}", "verifier", STEPS)
    serves: dict[ModelRole, str] = {"meta_verifier": version} if promoted else {}
    finish(
        store,
        spec,
        StageManifest(stage=stage, version=version, serves=serves, gates=(gate,), seconds=75),
    )


def figure(value: float) -> Figure:
    return Figure(value=value, low=value - 0.02, high=value + 0.02, cases=512)


def report(store: LocalStore, name: str = "course") -> Result:
    return CliRunner().invoke(
        app, ["runs", "report", name, "--store", str(store.root), "--out", str(out(store))]
    )


def out(store: LocalStore) -> Path:
    return Path(store.root).parent / "seen"


def page_of(store: LocalStore) -> str:
    said = report(store)
    assert (said.exit_code, said.stdout) == (0, f"{out(store) / 'report.html'}\n"), said.output
    return (out(store) / "report.html").read_text("utf-8")


def drawings(page: str) -> dict[str, ElementTree.Element]:
    """The charts by their titles, each of which is well-formed."""
    found = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    return {title: drawing for drawing in found if (title := drawing.findtext("title"))}


def words(drawing: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in drawing.iter("text")]


def test_a_curriculum_that_has_just_begun_has_a_page(store: LocalStore) -> None:
    spec = begin(store)
    page = page_of(store)
    seen = visible(page)
    assert f"0 of {len(spec.stages)} stages are done; 0-cold_start is next." in seen
    assert "1-verifier waits" in seen and "Learning" not in seen and "Measured" not in seen
    assert drawings(page) == {}


def test_a_curriculum_midway_shows_what_there_is_and_what_is_to_come(store: LocalStore) -> None:
    spec = begin(store, verifier=VerifierStage(steps=STEPS), prices=Prices(per_engine_hour=48))
    for stage in ("0-cold_start", "1-verifier"):
        end(store, spec, stage)
    put_steps(store, "1-verifier")
    put_steps(store, "1-meta_verifier", "meta_verifier", 3)
    page = page_of(store)
    seen = visible(page)
    assert "2 of 8 stages are done; 1-meta_verifier is next, 3 of its 20 steps taken." in seen
    assert "1-verifier verifier/000016 done 1 min 15 s" in seen
    assert "tokens trained on 1,368 cost of the engine hours 2.00" in seen
    charts = drawings(page)
    # No answer was cut off.
    assert list(charts) == [
        f"{title} by training step, stage after stage"
        for title in ("Mean reward", "Parts of the reward", "KL", "Entropy", "Length")
    ]
    said = words(charts["Mean reward by training step, stage after stage"])
    assert {"1-verifier", "16 steps", "3 of 20 steps", "1-generator", "not started"} <= set(said)
    kl = charts["KL by training step, stage after stage"]
    assert "1-verifier: 0.001 at step 1, 0.016 at step 16" in (kl.findtext("desc") or "")
    assert json.loads((out(store) / "summary.json").read_text())["status"]["done"] == 2


def test_gates_say_the_difference_with_its_noise_and_what_was_kept_out(store: LocalStore) -> None:
    spec = begin(store)
    end(store, spec, "1-verifier", promoted=False)
    assert "Pass@1 0.750 → 0.900 −0.150, noise ±0.037: not promoted" in visible(page_of(store))


def test_refreshes_and_ablations_lie_over_the_stage_that_they_belong_to(store: LocalStore) -> None:
    begin(
        store, ablations=("no-meta",), enhanced=EnhancedStage(steps=32, refresh=8, refresh_steps=4)
    )
    put_steps(store, "1-enhanced", number=32)
    put_steps(store, "1-enhanced-no-meta", number=32)
    put_steps(store, "1-enhanced-refresh-1", "meta_verifier", 4)
    put_steps(store, "1-enhanced-refresh-2", "meta_verifier", 4)
    charts = drawings(page_of(store))
    reward = charts["Mean reward by training step, stage after stage"]
    assert words(reward).count("1-enhanced") == 1
    titled = [group for group in reward.iter("g") if group.find("title") is not None]
    assert [group.get("class") for group in titled] == [
        "line verifier", "line meta_verifier", "line verifier ablation",
    ]  # fmt: skip
    assert "1-enhanced refresh: 0.05 at step 10, 0.20 at step 24" in (reward.findtext("desc") or "")
    parts = words(charts["Parts of the reward by training step, stage after stage"])
    assert parts.count("1-enhanced") == 3 and {"refresh", "no-meta"} <= set(parts)


def test_measured_figures_have_charts_with_intervals_tables_and_a_sentence(
    store: LocalStore,
) -> None:
    spec = begin(store, harder="nano-long", ablations=("no-self",))
    for stage in spec.stages:
        end(store, spec, stage.name)
    for version, value in (
        ("0-cold_start", 0.5),
        ("1-generator", 0.9),
        ("1-generator-no-self", 0.97),
    ):
        put_figures(
            store,
            "course",
            f"{version}/generator",
            {"pass_at_1": figure(value), "new_one": figure(0.25)},
        )
        put_figures(
            store, "course", f"{version}/generator-hard", {"pass_at_1": figure(value - 0.125)}
        )
    rounds = {
        f"{kind}_round_{number}": figure(0.5)
        for number in (1, 2)
        for kind in ("pass_at_1", "best_of_32")
    }
    put_figures(store, "course", "0-cold_start/refinement", rounds)
    page = page_of(store)
    seen, charts = visible(page), drawings(page)
    assert "Pass@1 rose from 50 % to 90 %." in seen  # ablations are left out
    assert list(charts) == ["Pass@1 by version", "Pass@1 by round", "Best of 32 by round"]
    assert words(charts["Pass@1 by version"])[-9:] == [
        "0-cold_start", "0.500", "0.375", "1-generator", "0.900", "0.775", "1-generator-no-self",
        "0.970", "0.845",
    ]  # fmt: skip
    assert "0-cold_start: 0.50 at round 1, 0.50 at round 2" in (
        charts["Best of 32 by round"].findtext("desc") or ""
    )
    assert "new one" in seen and "1-generator, hard 0.775 0.755 to 0.795 of 512 none" in seen
    assert "0-cold_start, best of 32 0.500 0.480 to 0.520 of 512 0.500" in seen
    summary = json.loads((out(store) / "summary.json").read_text())
    assert summary["figures"]["1-generator/generator"]["pass_at_1"]["value"] == 0.9


def test_a_curriculum_on_files_shows_what_its_judges_say(store: LocalStore, tmp_path: Path) -> None:
    for name in ("problems", "proofs", "analyses"):
        (tmp_path / f"{name}.jsonl").write_text("")
    files = Files(
        problems=Path("problems.jsonl"),
        proofs=Path("proofs.jsonl"),
        analyses=Path("analyses.jsonl"),
    )
    spec = begin(store, files=files, base=tmp_path)
    put_figures(store, "course", "0-cold_start/generator", {"judged_score": figure(0.5)})
    put_figures(store, "course", "1-generator/generator", {"judged_score": figure(0.75)})
    for stage in spec.stages:
        end(store, spec, stage.name)
    page = page_of(store)
    assert list(drawings(page)) == ["Judged score by version"]
    assert f"All {len(spec.stages)} stages are done." in visible(page)
    assert "on problems from problems.jsonl" in visible(page) and "exact checker" not in visible(
        page
    )


def test_names_and_texts_become_no_markup(store: LocalStore) -> None:
    attack = "</text></svg><script>alert(1)</script>"
    spec = begin(store, start=attack)
    end(store, spec, "1-verifier", figure=attack)
    put_figures(store, "course", "0-cold_start/verifier", {attack.replace("/", ""): figure(0.5)})
    record = TrainingStep(
        run_id="course-1-verifier",
        role="verifier",
        step=1,
        version="v",
        sampled_by=(),
        figures={},
        reward_parts={attack: 1.0},
    )
    add_run(store, "course", record.run_id)
    put_record(store, keys.step(record.run_id, "verifier", 1), record)
    page = page_of(store)
    assert "<script" not in page and visible(page).count(attack) >= 3


def test_the_page_names_the_runs_that_hold_the_labeled_proofs(store: LocalStore) -> None:
    begin(store)
    for name in ("course-1-label-nano", "course-2-label-nano"):
        add_run(store, "course", name)
    add_run(store, "other", "other-1-label-nano")
    seen = visible(page_of(store))
    assert (
        "course-1-label-nano" in seen
        and "other-1-label" not in seen
        and "course-2-label" not in seen
    )


def test_a_name_that_is_neither_run_nor_curriculum_is_refused(store: LocalStore) -> None:
    begin(store)
    error = report(store, "none").exception
    assert isinstance(error, ConfigError) and "no run named 'none'" in str(error)
    assert not out(store).exists()
