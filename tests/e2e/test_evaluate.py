"""`proofloop evaluate`: one-shot evaluation by the majority of critiques, by category."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from proofloop.cli.app import app
from proofloop.errors import ConfigError
from proofloop.runs.labels import labels_of
from proofloop.schema import keys
from proofloop.store import LocalStore

pytestmark = pytest.mark.usefixtures("quiet_log")

RUN = """
[problems]
domain = "nano"
[search]
rounds = 2
[engine]
kind = "simulated"
[labeling]
n = 64
m = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RUN)
    rows = [
        {
            "problem_idx": f"X-{number}",
            "question": f"Prove claim {number}.",
            "contest": "AB"[number % 2],
        }
        for number in range(6)
    ]
    Path("suite.json").write_text(json.dumps(rows))
    return tmp_path


def evaluate(*options: str) -> Result:
    arguments = ["evaluate", "suite.json", "--using", "mine.toml", "--store", "store", *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def figures(*options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(evaluate("--json", *options).stdout)
    return found


def test_each_problem_gets_8_proofs_with_8_critiques_each(folder: Path) -> None:
    found = figures()
    store, run = LocalStore(folder / "store"), found["run_id"]
    assert run == "mine-on-suite-one-shot"
    labels = list(labels_of(store, run))
    assert len(labels) == 6 * 8
    assert {len(list(store.list(keys.critiques(run, each.proof_id)))) for each in labels} == {8}
    passes = fmean(label.score == 1.0 for label in labels)
    assert found["categories"][-1]["pass_at_1"]["value"] == pytest.approx(passes)


def test_categories_come_first_and_all_problems_last(folder: Path) -> None:
    found = figures("--proofs", "2", "--critiques", "3")["categories"]
    assert [(each["category"], each["problems"]) for each in found] == [
        ("A", 3),
        ("B", 3),
        ("all", 6),
    ]
    assert [each["pass_at_1"]["cases"] for each in found] == [6, 6, 12]


def test_a_category_is_found_in_any_case_and_may_be_missing(folder: Path) -> None:
    rows = [{"Question": f"Prove claim {number}.", "Category": "AB"[number]} for number in (0, 1)]
    rows.append({"Question": "Prove claim 2.", "Category": ""})
    Path("suite.json").write_text(json.dumps(rows))
    found = figures("--proofs", "1", "--critiques", "1")["categories"]
    assert [each["category"] for each in found] == ["(none)", "A", "B", "all"]


def test_a_suite_of_plain_texts_is_refused(folder: Path) -> None:
    Path("suite.json").write_text(json.dumps(["Prove claim 1."]))
    with pytest.raises(ConfigError, match=r"row 1 of suite\.json is not an object"):
        evaluate()


def test_the_user_names_the_category(folder: Path) -> None:
    found = figures("--proofs", "1", "--critiques", "1", "--category", "problem_idx")["categories"]
    assert len(found) == 7
    printed = CliRunner().invoke(
        app, ["evaluate", "suite.json", "--using", "mine.toml", "--category", "level"]
    )
    assert "suite.json has no column 'level'" in str(printed.exception)


def test_a_plan_calls_no_model(folder: Path) -> None:
    printed = evaluate("--plan", "--proofs", "3")
    assert "calls of the verifier" in printed.stdout
    assert not list(LocalStore(folder / "store").list(keys.SPECS))
