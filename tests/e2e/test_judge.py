"""`proofloop judge`: proofs with people's grades through verifier, meta-verifier and labeler."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from proofloop.cli.app import app
from proofloop.method.domains.nano import NanoDomain, parse_question, render_proof, true_lines
from proofloop.runs.figures import evaluate_run
from proofloop.schema import keys
from proofloop.store import LocalStore
from tests.builders import visible

pytestmark = pytest.mark.usefixtures("quiet_log")

RUN = """
[engine]
kind = "simulated"
[engine.settings]
verifier_noise = {noise}
malformed_share = 0.05
[labeling]
n = 4
m = 3
k = 2
[prices]
per_million_completion_tokens = 2.0
"""
POINTS = {"0": 2, "0.5": 6, "1": 7}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("noisy.toml").write_text(RUN.format(noise=0.4))
    Path("sure.toml").write_text(RUN.format(noise=0.0))
    rows = [
        {
            "Problem": f"Prove <b>claim</b> {number // 3}.",
            "Response": f"Simulated proof {number:04x} of quality {quality}.",
            "Points": POINTS[quality],
            "Problem Source": "AB"[number % 2],
        }
        for number, quality in enumerate(["0", "0.5", "1"] * 8)
    ]
    Path("graded.jsonl").write_text("\n".join([*map(json.dumps, rows), "{not JSON"]))
    return tmp_path


def judge(*options: str) -> Result:
    arguments = ["judge", "graded.jsonl", "--store", "store", *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def figures(*options: str) -> list[dict[str, Any]]:
    found = json.loads(judge("--json", *options).stdout)
    runs: list[dict[str, Any]] = found["runs"]
    return runs


def test_the_figures_equal_those_of_the_exported_rows(folder: Path) -> None:
    (found,) = figures("--using", "noisy.toml", "--rows", "rows.jsonl")
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert len(rows) == found["proofs"] == 24
    assert [row["truth"] for row in rows] == [0.0, 0.5, 1.0] * 8
    decided = [row for row in rows if row["score"] is not None]
    accuracy = fmean(row["score"] == row["truth"] for row in decided)
    assert found["ways"]["meta_verified"]["accuracy"]["value"] == pytest.approx(accuracy)
    unread = fmean(each["score"] is None for row in rows for each in row["critiques"])
    assert found["critiques"]["unreadable"]["value"] == pytest.approx(unread)
    calls = [row["verifying"]["calls"] + row["meta_verifying"]["calls"] for row in rows]
    assert all(count >= 4 for count in calls)


def test_the_figures_agree_with_an_exact_checker(folder: Path) -> None:
    """Nano proofs that the checker graded: the same figures as those of `runs measure`."""
    domain = NanoDomain()
    rows = []
    for number in range(12):
        question = domain.pose(number, split="test", seed=0).question
        lines = true_lines(parse_question(question))
        solution = render_proof(lines if number % 3 else lines[:-1])
        finding = domain.checker.check_proof(question, solution)
        assert finding is not None
        rows.append({"problem": question, "proof": solution, "grade": finding.score})
    Path("graded.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("nano.toml").write_text(f'[problems]\ndomain = "nano"\n{RUN.format(noise=0.5)}')
    (found,) = figures("--using", "nano.toml")
    exact = evaluate_run(LocalStore(folder / "store"), "nano-on-graded", domain.checker)
    label = found["ways"]["meta_verified"]
    assert label["accuracy"]["value"] == exact.label_agreement.value
    assert label["undecided"]["value"] == exact.label_undecided.value
    assert exact.label_agreement.cases > 0


def test_judges_side_by_side(folder: Path) -> None:
    noisy, sure = figures("--using", "noisy.toml", "--using", "sure.toml")
    assert [noisy["run_id"], sure["run_id"]] == ["noisy-on-graded", "sure-on-graded"]
    way = "verifier"
    assert sure["ways"][way]["accuracy"]["value"] == 1.0 > noisy["ways"][way]["accuracy"]["value"]


def test_a_bad_row_is_named_and_the_others_are_judged(folder: Path) -> None:
    printed = judge("--using", "sure.toml")
    assert "skipped: row 25 of graded.jsonl is not JSON" in printed.stderr
    assert "grades go to 7: 7 counts as 1" in printed.stderr
    assert "24 proofs of 8 problems" in printed.stdout


def test_a_second_call_asks_nothing(folder: Path) -> None:
    judge("--using", "noisy.toml")
    store = LocalStore(folder / "store")
    before = list(store.list(keys.proofs("noisy-on-graded")))
    again = figures("--using", "noisy.toml")
    assert list(store.list(keys.proofs("noisy-on-graded"))) == before
    assert again[0]["proofs"] == 24


def test_rows_may_be_added(folder: Path) -> None:
    judge("--using", "sure.toml")
    with Path("graded.jsonl").open("a") as file:
        row = {"Problem": "New.", "Response": "Simulated proof ff of quality 1.", "Points": 7}
        file.write(f"\n{json.dumps(row)}")
    assert figures("--using", "sure.toml")[0]["proofs"] == 25


def test_a_plan_calls_no_model(folder: Path) -> None:
    printed = judge("--using", "noisy.toml", "--plan")
    assert "calls of the verifier" in printed.stdout
    assert "cost, by [prices]" in printed.stdout
    assert not Path("store").exists()


def test_no_model_sees_a_grade(folder: Path) -> None:
    judge("--using", "sure.toml")
    store = LocalStore(folder / "store")
    read_by_roles = [
        key for key in store.list(keys.run("sure-on-graded")) if key.endswith("/proof.json")
    ]
    assert read_by_roles
    assert not [key for key in read_by_roles if b'"graded"' in store.get(key)]


def test_the_page_shows_figures_plots_and_disagreements(folder: Path) -> None:
    judge("--using", "noisy.toml", "--using", "sure.toml", "--page", "judges.html")
    html = Path("judges.html").read_text()
    text = visible(html)
    for part in ("Agreement with people's grades", "By source", "The worst disagreements"):
        assert part in text
    assert html.count("<svg viewBox=") == 5
    assert "Simulated analysis claims quality" in text
    assert "Prove <b>claim</b>" not in html  # the texts are untrusted


def test_two_runs_need_two_names(folder: Path) -> None:
    Path("other").mkdir()
    Path("other/sure.toml").write_text(RUN.format(noise=0.1))
    printed = CliRunner().invoke(
        app, ["judge", "graded.jsonl", "--using", "sure.toml", "--using", "other/sure.toml"]
    )
    assert "two run files have the name 'sure-on-graded'" in str(printed.exception)


def test_a_run_names_its_rule(folder: Path) -> None:
    """Noisy critiques: a mean of 0.75 accepts more proofs than four critiques of 1 do."""
    solved: dict[str, int] = {}
    for name, rule in (("mean", 'rule = "mean"\naccept_at = 0.7'), ("all", 'rule = "unanimous"')):
        text = RUN.format(noise=0.3).replace("m = 3\nk = 2", f"m = 0\nk = 1\n{rule}")
        Path(f"{name}.toml").write_text(text)
        judge("--using", f"{name}.toml", "--rows", f"{name}.jsonl")
        rows = map(json.loads, Path(f"{name}.jsonl").read_text().splitlines())
        solved[name] = sum(row["outcome"] == "accepted" for row in rows)
    assert solved["mean"] > solved["all"]


def test_attacks_are_judged_and_counted_by_kind(folder: Path) -> None:
    """The simulated verifier reads the planted quality alone: no addition changes its mind."""
    options = ("--using", "sure.toml", "--attack", "--per-kind", "2")
    found = figures(*options)[0]
    succeeded = {each["attack"]: each["succeeds"]["verifier"]["value"] for each in found["attacks"]}
    assert found["run_id"] == "sure-on-graded-attacked"
    assert succeeded["none"] == succeeded["planted score"] == succeeded["instruction"] == 0.0
    assert {(each["escaped"], each["misread"]) for each in found["on_parser"]} == {(0, 0)}
    assert "planted score" in judge(*options).stdout


def test_the_example_has_proofs_and_a_plan() -> None:
    example = Path(__file__).parents[2] / "examples" / "judge-nano"
    arguments = ["judge", str(example / "graded.jsonl"), "--using", str(example / "run.toml")]
    printed = CliRunner().invoke(app, [*arguments, "--plan"], catch_exceptions=False)
    assert "judge-nano-on-graded: 90 proofs" in printed.stdout


def test_a_knock_out_chooses_among_accepted_proofs(folder: Path) -> None:
    """Its judge is always right: the winner is wrong only where no accepted proof is right."""
    rows = [json.loads(line) for line in Path("graded.jsonl").read_text().splitlines()[:-1]]
    Path("graded.jsonl").write_text(
        "\n".join(
            json.dumps({**row, "Problem": f"Prove {place % 4}."}) for place, row in enumerate(rows)
        )
    )
    lenient = RUN.format(noise=0.0).replace("m = 3", 'm = 0\nrule = "mean"\naccept_at = 0.4')
    Path("lenient.toml").write_text(lenient)
    options = ("--using", "lenient.toml", "--knock-out", "math-pairwise")
    (found,) = figures(*options)
    shown = {name: each["value"] for name, each in found["knock_out"]["figures"].items()}
    assert shown["any_wrong"] == pytest.approx(0.5, abs=0.2)
    assert (shown["winner_wrong"], shown["contradictory"]) == (0.0, 0.0)
    assert found["knock_out"]["tokens"] > 0
    stored = LocalStore(Path("store"))
    calls = len(list(stored.list(keys.proofs(found["knock_out"]["run_id"]))))
    (again,) = figures(*options)
    assert again["knock_out"] == found["knock_out"]
    assert len(list(stored.list(keys.proofs(found["knock_out"]["run_id"])))) == calls
    assert "knock-out: winner_wrong" in judge(*options).stdout
    assert "-knock-out" in judge(*options, "--plan").stdout


def test_a_verifier_gives_points(folder: Path) -> None:
    rows = [json.loads(line) for line in Path("graded.jsonl").read_text().splitlines()[:-1]]
    Path("graded.jsonl").write_text("\n".join(json.dumps({**row, "rubric": "7"}) for row in rows))
    Path("points.toml").write_text('prompts = "math-points"\n' + RUN.format(noise=0.0))
    (found,) = figures("--using", "points.toml", "--rows", "rows.jsonl")
    judged = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    means = [
        fmean(each["share"] for each in row["critiques"] if each["share"] is not None)
        for row in judged
    ]
    error = fmean(abs(mean - row["grade"]) for mean, row in zip(means, judged, strict=True))
    assert found["ways"]["verifier"]["mae"]["value"] == pytest.approx(error)
    assert found["ways"]["verifier"]["accuracy"]["value"] == 1.0
