"""A run from Python: what a loop over it yields, and what becomes of one that is left early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import proofloop
from proofloop import ConfigError, ProofResult, Run, judge, prove
from proofloop.errors import BudgetUsedUp

JUDGED = "Modulo 10, start at 2. a + 3. b * 4. Show that the result is 0."


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "name": "r",
        "problems": {"domain": "nano", "count": 3, "proofs_per_problem": 2},
        "engine": {"kind": "simulated"},
        **changes,
    }


SLOW = {"kind": "simulated", "settings": {"latency_s": 0.2}}


def ids(results: list[ProofResult]) -> list[str]:
    return sorted(result.id for result in results)


def test_a_loop_yields_each_proof_once_with_its_label(tmp_path: Path) -> None:
    run = Run.create(fields(), store=tmp_path)
    found = list(run)
    assert len(set(ids(found))) == len(found) == run.progress.labeled == 6
    assert all(result.outcome and result.question and result.critiques for result in found)
    assert ids(list(run.results())) == ids(found)


def test_a_loop_that_is_left_stops_the_run_and_the_next_continues_it(tmp_path: Path) -> None:
    run = Run.create(fields(engine=SLOW), store=tmp_path)
    first = next(iter(run))
    run.stop()
    assert len(list(run.results())) < 6
    found = list(run)
    assert first in found and len(found) == 6


def test_an_error_within_a_loop_leaves_a_run_that_can_be_stopped(tmp_path: Path) -> None:
    run = Run.create(fields(engine=SLOW), store=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        for _ in run:
            raise KeyboardInterrupt
    run.stop()
    assert len(list(run)) == 6


def test_a_run_whose_budget_ends_yields_all_that_it_labeled(tmp_path: Path) -> None:
    run = Run.create(
        fields(budget={"tokens": 50_000}, flow={"max_waiting_proofs": 1}), store=tmp_path
    )
    found: list[ProofResult] = []
    with pytest.raises(BudgetUsedUp):
        for result in run:
            found.append(result)
    assert 0 < len(found) < 6
    assert ids(found) == ids(list(run.results()))


def test_the_error_of_a_run_comes_out_of_the_loop(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "settings": {"good_share": 2.0}}
    with pytest.raises(ConfigError, match="good_share"):
        list(Run.create(fields(engine=engine), store=tmp_path))


def test_a_run_is_created_once_and_opened_by_name(tmp_path: Path) -> None:
    run = Run.create(fields(), store=tmp_path)
    assert run.finish().labeled == 6
    with pytest.raises(ConfigError, match=r"run 'r' is already in the store\nhint: .*resume=True"):
        Run.create(fields(), store=tmp_path)
    opened = Run.open("r", store=str(tmp_path))
    assert list(opened.results()) == list(run.results())
    with pytest.raises(
        ConfigError, match=r"no run named 'q' in .*\nhint: check the name and `store`"
    ):
        Run.open("q", store=tmp_path)


def test_a_run_of_a_domain_is_measured_by_its_checker(tmp_path: Path) -> None:
    run = Run.create(fields(), store=tmp_path)
    run.finish()
    assert run.measure().pass_at_1.cases == 6
    assert all(result.finding for result in run.results())


def test_the_report_is_one_file(tmp_path: Path) -> None:
    run = Run.create(fields(), store=tmp_path / "data")
    run.finish()
    assert "<html" in run.report(tmp_path / "out" / "r.html").read_text()


def test_a_search_has_a_best_proof_for_each_problem(tmp_path: Path) -> None:
    search = {"rounds": 1, "keep": 1, "analyses": 1}
    run = Run.create(fields(search=search), store=tmp_path)
    run.finish()
    assert len({best.problem_id for best in run.best()}) == 3


def logged(folder: Path) -> dict[str, Any]:
    """The fields of a run whose engine logs its calls in this folder."""
    return fields(engine={"kind": "simulated", "settings": {"call_log": str(folder)}})


def calls(folder: Path) -> list[str]:
    return [line for file in folder.iterdir() for line in file.read_text().splitlines()]


def test_a_problem_is_proved_once(tmp_path: Path) -> None:
    log, using = tmp_path / "calls", logged(tmp_path / "calls")
    (found,) = prove("Show that 2 is even.", using=using, store=tmp_path / "data")
    made = calls(log)
    assert prove("Show that 2 is even.", using=using, store=tmp_path / "data") == [found]
    assert calls(log) == made
    assert found.question == "Show that 2 is even." and found.finding is None


def test_a_given_proof_is_judged_and_none_is_written(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    found = judge(JUDGED, "b 5 * 4 = 0", using=logged(log), store=tmp_path / "data")
    assert (found.proof, found.self_score) == ("b 5 * 4 = 0", None)
    assert found.outcome is not None and found.critiques
    assert found.finding is not None and found.finding.score == 0.5
    roles = {line.split()[1].partition(":")[0] for line in calls(log)}
    assert "verifier" in roles and "generator" not in roles


def test_every_name_of_the_api_can_be_imported() -> None:
    assert all(getattr(proofloop, name) is not None for name in proofloop.__all__)
    assert set(proofloop.__all__) <= set(dir(proofloop))
    with pytest.raises(AttributeError, match="has no attribute 'prover'"):
        proofloop.prover  # noqa: B018 (the access is the test)
