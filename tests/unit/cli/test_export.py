"""`runs export`: rows in each format, the best proof of each problem, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.errors import ConfigError
from proofloop.runs.create import create_run
from proofloop.runs.search.records import SearchResult
from proofloop.schema import keys
from proofloop.store import LocalStore, put_record
from tests.builders import (
    MALFORMED,
    PRAISED,
    RUN,
    critique,
    label,
    proof,
    put_case,
    put_grade,
    runspec,
)

pytestmark = pytest.mark.usefixtures("quiet_log")

ACCEPTED, UNDECIDED, UNREADABLE = "p1-000", "p1-001", "p1-002"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A run with an accepted, an undecided and an unreadable proof of one problem."""
    store = LocalStore(tmp_path / "store")
    create_run(store, runspec(), resume=False)
    put_case(store, UNDECIDED, solution="Two, *perhaps*;\nor three.")
    put_record(store, keys.proof(RUN, ACCEPTED), proof(id=ACCEPTED, solution='"Let" $n = 2k$.'))
    for index, verdict in enumerate((PRAISED, PRAISED, MALFORMED)):
        put_record(store, keys.critique(RUN, ACCEPTED, index), critique(index, verdict))
    put_record(store, keys.label(RUN, ACCEPTED), label(proof_id=ACCEPTED, solved=True))
    unreadable = proof(MALFORMED, id=UNREADABLE, solution="")
    put_record(store, keys.proof(RUN, UNREADABLE), unreadable)
    return store


@pytest.fixture
def export(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    monkeypatch.setenv("PROOFLOOP_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> str:
        options = [*arguments, "--store", str(tmp_path / "store")]
        result = CliRunner().invoke(
            app, ["runs", "export", RUN, *options], catch_exceptions=False, prog_name="proofloop"
        )
        if result.exception:
            raise result.exception
        return result.stdout

    return run


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_proof_is_a_row_with_its_label_critiques_and_origin(
    export: Callable[..., str],
) -> None:
    accepted, undecided, unreadable = rows(export())
    assert (accepted["proof"], accepted["problem"], accepted["run"]) == (ACCEPTED, "p1", RUN)
    assert (accepted["question"], accepted["score"], accepted["by"], accepted["solved"]) == (
        "Prove that $2n$ is even.",
        1.0,
        "labeler",
        True,
    )
    assert (accepted["critiques_passed"], accepted["critiques_read"]) == (2, 2)
    assert accepted["model"] and accepted["self_score"] == 1.0
    assert (undecided["outcome"], undecided["score"], undecided["critiques_passed"]) == (
        "undecided",
        None,
        1,
    )
    assert (unreadable["unreadable_because"], unreadable["outcome"]) == ("no score", None)
    assert [row["proof"] for row in rows(export("--scored"))] == [ACCEPTED]


def test_a_dash_is_the_standard_output(
    export: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export("--out", "-") == export()
    assert not (tmp_path / "-").exists()


def test_no_rows_are_told_from_a_file_that_was_not_written(
    store: LocalStore, tmp_path: Path
) -> None:
    options = ["--people", "--store", str(store.root)]
    result = CliRunner().invoke(app, ["runs", "export", RUN, *options])
    assert (result.stdout, result.stderr) == (
        "",
        f"no rows: {RUN} has no proof that people graded\n",
    )
    for path in (store.root / "runs" / RUN / "labels").iterdir():
        path.unlink()
    best = CliRunner().invoke(app, ["runs", "export", RUN, "--best", "--store", str(store.root)])
    assert best.stderr == f"no rows: {RUN} has no readable proof with a label yet\n"


def test_a_persons_score_goes_first_and_has_the_comment(
    store: LocalStore, export: Callable[..., str]
) -> None:
    put_grade(store, 0.0, proof_id=UNDECIDED, comment="n = 3 is left out")
    (row,) = rows(export("--people"))
    assert (row["score"], row["by"], row["comment"]) == (0.0, "Emmy", "n = 3 is left out")


def test_critiques_are_in_the_rows_when_asked_for(export: Callable[..., str]) -> None:
    assert "critiques" not in rows(export())[0]
    first, _, last = rows(export("--critiques"))[1]["critiques"]
    assert (first["critique"], first["score"], first["confirmed"]) == (0, 0.5, True)
    assert (last["score"], last["confirmed"]) == (1.0, None) and last["analysis"]


def test_csv_and_parquet_hold_the_same_rows(export: Callable[..., str], tmp_path: Path) -> None:
    lines = rows(export())
    table, columns = tmp_path / "new" / "r1.csv", tmp_path / "r1.parquet"
    assert export("--out", str(table)).strip() == str(table)
    read = list(csv.DictReader(io.StringIO(table.read_text("utf-8"), newline="")))
    assert [row["solution"] for row in read] == [row["solution"] for row in lines]
    assert [row["score"] for row in read] == ["1.0", "", ""]
    export("--out", str(columns))
    assert parquet.read_table(columns).to_pylist() == lines
    with_critiques = rows(export("--critiques"))
    export("--critiques", "--out", str(columns))
    assert parquet.read_table(columns).to_pylist() == with_critiques
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "r1.parquet", "store"]


def test_the_best_proof_is_the_solved_one_or_the_choice_of_the_search(
    store: LocalStore, export: Callable[..., str]
) -> None:
    waiting = proof(id="p2-000", problem_id="p2")
    put_record(store, keys.proof(RUN, waiting.id), waiting)
    assert [row["proof"] for row in rows(export("--best"))] == [ACCEPTED]
    chosen = SearchResult(
        problem_id="p1",
        proofs=3,
        best=UNDECIDED,
        score=0.5,
        solved=False,
        best_by_round=(UNDECIDED,),
    )
    put_record(store, keys.search_result(RUN, "p1"), chosen)
    assert [row["proof"] for row in rows(export("--best"))] == [UNDECIDED]


def test_the_best_proofs_are_a_markdown_document(
    export: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "best.md"
    export("--best", "--critiques", "--out", str(file))
    text = file.read_text("utf-8")
    assert "## Problem p1\n\nProve that $2n$ is even.\n" in text
    assert '"Let" $n = 2k$.\n' in text and "accepted, score 1 by labeler; 2 of 2" in text
    assert "### Critique 0: score 1\n" in text and "### Critique 2: unreadable\n" in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--out", "r1.doc"), "the suffix names no format"),
        (("--format", "md"), "is for the best proofs"),
        (("--format", "csv", "--critiques"), "no place for several critiques"),
        (("--format", "parquet"), "not for a terminal"),
        (("--analyses", "--best"), "--analyses excludes"),
        (("--out", "/dev/null/x.csv"), "cannot be written"),
        (("--out", "/", "--format", "jsonl"), "--out / is a folder\nhint: name a file"),
        (("--out", ".", "--format", "parquet"), r"--out \. is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    export: Callable[..., str], options: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        export(*options)
