"""The package examples/plugin, installed: its contract tests, and a run from start to review."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from proofloop.ui.access import NAME_COOKIE

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
PROOFLOOP = Path(sys.executable).with_name("proofloop")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The plug-in in a folder of its own, and an empty store."""
    folder = tmp_path_factory.mktemp("plugin")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder / "site"))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(PLUGIN)], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROOFLOOP_")}
    return {
        **kept,
        "PYTHONPATH": str(folder / "site"),
        "PROOFLOOP_STORE": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
    }


def call(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [str(PROOFLOOP), *words], env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def done(environment: dict[str, str]) -> str:
    return call(environment, "run", str(PLUGIN / "run.toml"))


def test_its_domain_and_engine_keep_the_contracts(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGIN)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_doctor_lists_its_parts_and_reads_its_answers(environment: dict[str, str]) -> None:
    rows = json.loads(call(environment, "doctor", str(PLUGIN / "run.toml"), "--json"))
    found = {row["what"]: row["found"] for row in rows}
    assert "pupil" in found["engines"]
    assert "fractions" in found["domains"] and "fractions" in found["prompt packs"]
    assert all(found[role].startswith("readable") for role in ("generator", "verifier"))


def test_its_checker_measures_a_run(environment: dict[str, str], done: str) -> None:
    assert done.startswith("fractions: 32 proofs done")
    rows = json.loads(call(environment, "runs", "measure", "fractions", "--json"))
    figures = {row["figure"]: row for row in rows}
    assert 0 < figures["pass_at_1"]["value"] < 1
    assert figures["meta_verifier_accuracy"]["cases"] > 0


def test_its_findings_are_in_the_report(
    environment: dict[str, str], done: str, tmp_path: Path
) -> None:
    call(environment, "runs", "report", "fractions", "--out", str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "Exact checker" in page and "step 1 is wrong" in page


def test_the_review_page_shows_its_proofs(environment: dict[str, str], done: str) -> None:
    command = [str(PROOFLOOP), "ui", "fractions", "--spot-checks", "4", "--port", "0"]
    page = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert page.stdout is not None
        with page.stdout as stdout:
            address = json.loads(stdout.readline())["url"]
            shown = httpx.get(f"{address}grade/runs/fractions", cookies={NAME_COOKIE: "Emmy"}).text
        assert "fractions-" in shown
    finally:
        page.send_signal(signal.SIGTERM)
        assert page.wait(60) == 0
