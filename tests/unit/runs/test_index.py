"""The index of a store's runs: it follows the labels, and tells what the records say."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proofloop.config.run_file import Prices
from proofloop.errors import ConfigError
from proofloop.runs.costs import costs
from proofloop.runs.create import create_run
from proofloop.runs.index import Index, database, open_index
from proofloop.runs.index.comparing import Side, compare
from proofloop.runs.index.counting import count_costs, num_uncounted
from proofloop.runs.index.filling import fill
from proofloop.runs.index.tables import Choice, problem_rows, proofs_of, totals
from proofloop.runs.search.records import SearchResult
from proofloop.schema import keys
from proofloop.schema.records import Problem
from proofloop.store import LocalStore, put_record
from tests.builders import (
    PROVENANCE,
    RUN,
    label,
    proof,
    put_case,
    put_grade,
    runspec,
    undecided_label,
    valid,
)

PRICES = Prices(per_million_completion_tokens=1e6)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    create_run(store, runspec(), resume=False)
    return store


@pytest.fixture
def index(store: LocalStore, tmp_path: Path) -> Index:
    return open_index(store, tmp_path / "cache")


def put_proof(
    store: LocalStore,
    name: str,
    score: float | None = 1.0,
    *,
    self_score: float = 1.0,
    solved: bool = False,
    version: str = "m-1",
    run: str = RUN,
    question: str = "",
) -> None:
    """A labeled proof, with its problem."""
    problem = name.rpartition("-")[0]
    made = PROVENANCE.model_copy(update={"model_version": version})
    about = {"run_id": run, "problem_id": problem, "group": problem}
    question = question or f"Prove {problem}: 100 % of $x_1$."
    put_record(store, keys.problem(run, problem), Problem(id=problem, question=question))
    written = proof(valid(self_score), id=name, provenance=made, **about)
    put_record(store, keys.proof(run, name), written)
    made_label = {
        1.0: label(1.0, proof_id=name, solved=solved, **about),
        0.0: label(0.0, proof_id=name, outcome="rejected", kind="rejected_upheld", **about),
        None: undecided_label(proof_id=name, **about),
    }[score]
    put_record(store, keys.label(run, name), made_label)


def ids(index: Index, sort: str = "problem", show: str = "all", search: str = "") -> list[str]:
    rows, _ = problem_rows(index, RUN, Choice.of(sort, show, search), Prices())
    return [row.id for row in rows]


def test_labels_that_came_since_are_read_and_the_others_are_not(
    store: LocalStore, index: Index
) -> None:
    put_proof(store, "p1-000")
    fill(index, store, RUN)
    store.path(keys.label(RUN, "p1-000")).write_text("damaged since: nobody reads it again")
    put_proof(store, "p1-001", 0.0)
    seen: list[tuple[int, int]] = []
    fill(index, store, RUN, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert totals(index, RUN).outcomes == {"accepted": 1, "rejected": 1}


def test_a_problem_has_its_outcomes_and_its_best_proof(store: LocalStore, index: Index) -> None:
    put_proof(store, "p1-000", 0.0)
    put_proof(store, "p1-001", 1.0, self_score=0.5)
    put_proof(store, "p1-002", 1.0)
    put_proof(store, "p1-003", None)
    put_record(store, keys.problem(RUN, "p2"), Problem(id="p2", question="No proof yet."))
    fill(index, store, RUN)
    (first, second), matching = problem_rows(index, RUN, Choice(), Prices())
    assert matching == 2
    assert (first.proofs, first.accepted, first.rejected, first.undecided) == (4, 2, 1, 1)
    assert (first.best, first.best_score, first.solved) == ("p1-002", 1.0, False)
    assert (second.id, second.proofs, second.best) == ("p2", 0, None)
    assert [row.id for row in proofs_of(index, RUN, "p1")] == [
        "p1-002",
        "p1-001",
        "p1-000",
        "p1-003",
    ]


def test_a_solved_proof_is_the_best_and_a_search_names_its_own(
    store: LocalStore, index: Index
) -> None:
    put_proof(store, "p1-000")
    put_proof(store, "p1-001", solved=True, self_score=0.0)
    put_proof(store, "p2-000")
    put_proof(store, "p2-001")
    end = SearchResult(
        problem_id="p2",
        proofs=2,
        best="p2-001",
        score=0.9,
        solved=False,
        best_by_round=("p2-000", "p2-001"),
    )
    put_record(store, keys.search_result(RUN, "p2"), end)
    fill(index, store, RUN)
    rows, _ = problem_rows(index, RUN, Choice(), Prices())
    assert [(row.best, row.rounds) for row in rows] == [("p1-001", None), ("p2-001", 1)]


def test_a_grade_that_comes_later_changes_the_outcome(store: LocalStore, index: Index) -> None:
    put_proof(store, "p1-000", None)
    fill(index, store, RUN)
    assert totals(index, RUN).outcomes == {"undecided": 1}
    put_grade(store, 1.0, by="Emmy Noether")
    fill(index, store, RUN)
    assert totals(index, RUN).outcomes == {"accepted": 1}
    assert proofs_of(index, RUN, "p1")[0].labeled_by == "Emmy Noether"


def test_another_run_of_the_same_name_replaces_a_deleted_one(
    store: LocalStore, index: Index
) -> None:
    put_proof(store, "p1-000")
    fill(index, store, RUN)
    store.delete_prefix(keys.run(RUN))
    put_proof(store, "p9-000", 0.0)
    fill(index, store, RUN)
    assert ids(index) == ["p9"]
    assert totals(index, RUN).outcomes == {"rejected": 1}


def test_another_run_of_the_same_name_replaces_a_deleted_one_with_the_same_ids(
    store: LocalStore, index: Index
) -> None:
    put_proof(store, "p1-000")
    fill(index, store, RUN)
    for prefix in (keys.run(RUN), keys.SPECS):
        store.delete_prefix(prefix)
    create_run(store, runspec(), resume=False)
    put_proof(store, "p1-000", 0.0)
    fill(index, store, RUN)
    assert totals(index, RUN).outcomes == {"rejected": 1}


def test_problems_are_sorted_filtered_and_searched(store: LocalStore, index: Index) -> None:
    put_proof(store, "p2-000", solved=True)
    put_proof(store, "p10-000", 0.0)
    put_proof(store, "p10-001", None)
    fill(index, store, RUN)
    assert ids(index) == ["p2", "p10"]
    assert ids(index, "-proofs") == ["p10", "p2"]
    assert ids(index, "-best") == ["p2", "p10"]
    assert ids(index, show="solved") == ids(index, show="accepted") == ["p2"]
    assert ids(index, show="open") == ids(index, show="undecided") == ["p10"]
    assert ids(index, search="prove P10") == ["p10"]
    assert ids(index, search="100 %") == ["p2", "p10"]
    assert ids(index, search="10%0") == ids(index, search="x11") == []
    rows, matching = problem_rows(index, RUN, Choice(), Prices(), limit=1, offset=1)
    assert ([row.id for row in rows], matching) == (["p10"], 2)


@pytest.mark.parametrize(("sort", "show"), [("name", "all"), ("problem", "none")])
def test_an_unknown_column_or_group_is_refused_with_the_known_ones(sort: str, show: str) -> None:
    with pytest.raises(ConfigError, match=r"one of .*(undecided|cost)"):
        Choice.of(sort, show, "")


def test_a_text_to_search_for_that_sqlite_would_refuse_is_too_long() -> None:
    with pytest.raises(ConfigError, match="has 60000 characters; the most is 1000"):
        Choice.of("problem", "all", "a" * 60_000)


def test_costs_are_counted_on_request_once_and_equal_those_of_the_run(
    store: LocalStore, index: Index
) -> None:
    put_case(store)
    fill(index, store, RUN)
    (row,), _ = problem_rows(index, RUN, Choice(), PRICES)
    assert (row.counted, row.cost) == (0, None)
    assert num_uncounted(index, RUN) == num_uncounted(index, RUN, "p1") == 1
    assert list(count_costs(index, store, RUN)) == [1]
    assert num_uncounted(index, RUN) == num_uncounted(index, RUN, "p1") == 0
    assert list(count_costs(index, store, RUN)) == []
    (row,), _ = problem_rows(index, RUN, Choice(), PRICES)
    assert (row.counted, row.cost) == (1, pytest.approx(costs(store, RUN, PRICES).total.money))
    (row,), _ = problem_rows(index, RUN, Choice(), Prices())
    assert row.cost is None


def test_a_damaged_index_is_made_again(store: LocalStore, tmp_path: Path) -> None:
    put_proof(store, "p1-000")
    file = open_index(store, tmp_path / "cache").file
    file.write_bytes(b"this is no database, whatever it was before" * 100)
    index = open_index(store, tmp_path / "cache")
    fill(index, store, RUN)
    assert totals(index, RUN).proofs == 1


def test_an_index_that_is_damaged_or_deleted_meanwhile_is_filled_again(
    store: LocalStore, index: Index
) -> None:
    put_proof(store, "p1-000")
    fill(index, store, RUN)
    pages = bytearray(index.file.read_bytes())
    pages[4096:] = b"damaged " * (len(pages[4096:]) // 8)
    index.file.write_bytes(pages)
    for file in index.file.parent.glob("*.sqlite-*"):
        file.unlink()
    fill(index, store, RUN)
    assert totals(index, RUN).proofs == 1
    index.file.unlink()
    assert totals(index, RUN).proofs == 0
    fill(index, store, RUN)
    assert totals(index, RUN).proofs == 1


def test_an_index_that_is_locked_is_told(
    store: LocalStore, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.0)
    with closing(sqlite3.connect(index.file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigError, match=r"cannot write the index .*locked"):
            fill(index, store, RUN)


def test_an_index_that_cannot_be_written_is_refused(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ConfigError, match="PROOFLOOP_CACHE"):
        open_index(store, tmp_path / "cache")


def test_runs_and_versions_are_compared_on_the_problems_of_both(
    store: LocalStore, index: Index
) -> None:
    first, second = (f"runs/r1/models/generator/00000{number}" for number in (1, 2))
    for number in range(4):
        put_proof(store, f"p{number}-000", 0.0, version=first)
        put_proof(store, f"p{number}-001", 1.0, version=second)
    put_proof(store, "p3-002", 0.0, version=second)
    put_proof(store, "p1-000", 1.0, run="r2")
    put_proof(store, "p7-000", 1.0, run="r2")
    for run in (RUN, "r2"):
        fill(index, store, run)

    versions = compare(index, Side.parse("r1@1"), Side.parse("r1@000002"))
    accepted = versions.figures[0]
    assert (accepted.first.value, accepted.second.value, accepted.difference) == (0.0, 0.8, 0.875)
    assert accepted.low == pytest.approx(0.875 - 3.1824 * 0.125)  # 3 degrees of freedom
    assert accepted.high == 1.0
    assert accepted.is_clear

    runs = compare(index, Side.parse("r1"), Side.parse("r2"))
    on_both, *others = runs.problems
    assert on_both.first and on_both.second
    assert (on_both.first.proofs, on_both.second.proofs) == (2, 1)
    assert [bool(each.first and each.second) for each in others] == [False] * 4
    assert runs.figures[0].difference is None
    with pytest.raises(ConfigError, match=r"000001, .*000002"):
        compare(index, Side.parse("r1@3"), Side.parse("r1"))


def test_all_given_proofs_of_a_question_are_compared(store: LocalStore, index: Index) -> None:
    for number, score in enumerate((1.0, 0.0, 0.0)):
        put_proof(store, f"g{number}-000", score, question="Prove it.")
        put_proof(store, f"g{number}-000", 1.0, run="r2", question="Prove it.")
    for run in (RUN, "r2"):
        fill(index, store, run)
    found = compare(index, Side(RUN), Side("r2"))
    (row,) = found.problems
    assert row.first and row.second
    assert (row.first.id, row.first.accepted, row.first.proofs) == ("g0", 1, 3)
    assert (row.second.accepted, row.second.proofs) == (3, 3)
    accepted = found.figures[0]
    assert (accepted.first.value, accepted.first.cases) == (pytest.approx(1 / 3), 3)


def test_equal_differences_tell_nothing_of_the_noise(store: LocalStore, index: Index) -> None:
    for run, right in ((RUN, (0, 2)), ("r2", (1, 3))):  # 1/3 - 0 and 1 - 2/3 differ by rounding
        for problem, number in enumerate(right):
            for proof_number in range(3):
                score = float(proof_number < number)
                put_proof(store, f"p{problem}-00{proof_number}", score, run=run)
        fill(index, store, run)
    accepted = compare(index, Side(RUN), Side("r2")).figures[0]
    assert accepted.difference == pytest.approx(1 / 3)
    assert (accepted.low, accepted.high, accepted.is_clear) == (None, None, False)
