"""Which model an iteration trains on, and what its problems are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from proofloop.config.curriculum_file import CurriculumSpec, Stage
from proofloop.curriculum import compose, gate
from proofloop.curriculum.compose import everywhere
from proofloop.curriculum.measuring import best_of
from proofloop.curriculum.sources import open_sources
from proofloop.curriculum.stages import gated, generator, learned, pick, start_of
from proofloop.curriculum.work import Work
from proofloop.errors import HintedError
from proofloop.runs.given import cases_of
from proofloop.runs.spec import get_spec
from proofloop.schema import keys
from proofloop.schema.records import ALL_ROLES, TrainingStep
from proofloop.store import put_record
from tests.unit.curriculum.works import work_on

ENHANCED, COLD = "runs/c-1-enhanced/models/verifier/000048", "runs/c-0-cold_start/models/all/000010"
CONSOLIDATED = "runs/c-1-consolidate/models/all/000900"


@pytest.mark.parametrize(
    ("iteration", "verifier", "generator", "start"),
    [
        (1, "nano-base", "nano-base", "nano-base"),
        (1, ENHANCED, COLD, "verifier"),
        (2, CONSOLIDATED, CONSOLIDATED, "verifier"),
        (2, ENHANCED, CONSOLIDATED, "generator"),
        (2, "runs/c-2-enhanced/models/verifier/000048", CONSOLIDATED, "verifier"),
        (2, ENHANCED, "runs/c-1-generator/models/generator/000040", "verifier"),
    ],
)
def test_an_iteration_goes_on_from_the_consolidated_model_whichever_role_it_serves(
    tmp_path: Path, iteration: int, verifier: str, generator: str, start: str
):
    served: dict[Any, str] = {
        "verifier": verifier,
        "generator": generator,
        "meta_verifier": verifier,
    }
    stage = Stage(name=f"{iteration}-generator", kind="generator", iteration=iteration)
    assert start_of(work_on(tmp_path), stage, served) == served.get(start, start)


def test_an_ablation_gets_the_cases_of_the_stage_that_it_is_compared_with(tmp_path: Path):
    work = work_on(tmp_path)
    stage = Stage(name="1-generator", kind="generator", iteration=1)
    ablated = Stage(name="1-generator-no-self", kind="generator", iteration=1, ablation="no-self")
    first = pick(work, stage, 0, range(100), 5)
    assert pick(work, ablated, 0, range(100), 5) == first
    assert pick(work, stage, 1, range(100), 5) != first


@pytest.mark.parametrize(
    ("ablation", "weights", "metas"), [(None, (0.76, 0.24), 3), ("no-self", (1.0, 0.0), 0)]
)
def test_the_ablation_no_self_gives_the_whole_weight_to_the_proof(
    tmp_path: Path, ablation: Literal["no-self"] | None, weights: tuple[float, float], metas: int
):
    work = work_on(tmp_path, generator={"steps": 2, "groups": 3, "samples": 4})
    stage = Stage(name="1-generator", kind="generator", iteration=1, ablation=ablation)
    with pytest.raises(HintedError, match="its trainer has published no version"):
        generator(work, stage, everywhere("nano-base"))
    run = get_spec(work.store, "c-1-generator")
    assert (run.reward.alpha, run.reward.beta) == weights
    assert (run.labeling.self_m, run.problems.proofs_per_problem) == (metas, 4)
    assert len(list(cases_of(work.store, run.name))) == 2 * 3


def test_a_role_without_an_answer_to_learn_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    work = work_on(tmp_path)
    run = compose.consolidation(work.spec, "1-consolidate", everywhere("nano-base"), ["a"])
    record_supervised_step(work, run.name, {"answers_generator": 12.0, "steps": 1.0})
    figures = learned(work, run, ["generator", "verifier"])
    assert figures == {"answers of the generator": 12.0, "answers of the verifier": 0.0}
    first, warning = capsys.readouterr().out.splitlines()
    assert first == "1-consolidate: answers learned: generator 12, verifier 0"
    assert warning.startswith("warning: no answer of the verifier has a reward of [consolidate]")


def record_supervised_step(work: Work, run: str, figures: dict[str, float]) -> None:
    record = TrainingStep(
        run_id=run,
        role=ALL_ROLES,
        step=3,
        version=keys.model(run, ALL_ROLES, 3),
        sampled_by=(),
        figures=figures,
        reward_parts={},
    )
    put_record(work.store, keys.step(run, ALL_ROLES, 3), record)


@pytest.mark.parametrize(
    ("ablation", "serves", "decision"),
    [(None, True, "promoted"), ("no-meta", False, "an ablation never serves")],
)
def test_an_ablation_never_serves_however_good_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ablation: Literal["no-meta"] | None,
    serves: bool,
    decision: str,
):
    better = gate.paired("f", ["a", "b"], [0.0, 0.0], [1.0, 1.0], z=1.96)
    monkeypatch.setattr("proofloop.curriculum.gate.compare", lambda *_: better)
    monkeypatch.setattr("proofloop.curriculum.stages.held_out", lambda *_: None)
    stage = Stage(name="1-enhanced", kind="enhanced", iteration=1, ablation=ablation)
    found = gated(work_on(tmp_path), stage, "verifier", everywhere("nano-base"), ENHANCED)
    assert found.serves == ({"verifier": ENHANCED} if serves else {})
    assert [report.decision for report in found.gates] == [decision]


def test_harder_problems_come_from_the_second_iteration_on_in_turn_with_the_others():
    sources = open_sources(CurriculumSpec(name="c", harder="nano-long"))

    def steps(iteration: int) -> list[int]:
        questions = sources.questions(100, domains=sources.domains(iteration))
        return [question.count(". ") - 1 for question in questions]

    assert set(steps(1)) == {2, 3, 4, 5, 6}
    assert (set(steps(2)[::2]), set(steps(2)[1::2])) == ({2, 3, 4, 5, 6}, {7, 8})


def test_the_best_by_self_score_counts_once_however_many_say_the_same():
    assert best_of([(1.0, 1.0), (0.0, 1.0), (1.0, 0.5)]) == 0.5
    assert best_of([(0.0, 1.0), (1.0, 0.0)]) == 0.0
