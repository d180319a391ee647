"""`proofloop demo --quick`: the whole loop from a base model to published versions, measured before
and after.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proofloop.cli.demo.spec import QUICK_EVAL_SIZE, QUICK_STEPS
from proofloop.runs.figures import Evaluation
from proofloop.runs.model_registry import published_versions
from proofloop.schema import keys
from proofloop.store import LocalStore
from proofloop.store.model_folders import verify_version

COMMAND = str(Path(sys.executable).parent / "proofloop")
RUN = "demo-0-quick"
CASES = QUICK_EVAL_SIZE.problems * QUICK_EVAL_SIZE.proofs_per_problem


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PROOFLOOP_")
    }
    return subprocess.run(
        [COMMAND, "demo", "--quick", "--out", "out"],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
    )


def engine_answers(store: LocalStore) -> set[str]:
    """What an engine was paid for, of all runs in the store."""
    kinds = ("/critiques/", "/meta_critiques/", "/proof.json")
    return {key for key in store.list("runs/") if any(kind in key for kind in kinds)}


@pytest.mark.slow
@pytest.mark.timeout(600)  # two processes, each within 280 s
def test_the_quick_demo_trains_measures_and_reports_and_is_done_once(tmp_path: Path) -> None:
    pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
    began = time.monotonic()
    first = demo(tmp_path)
    took = time.monotonic() - began
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    for stage in ("1/4 measuring", "2/4 proving and training", "3/4 measuring", "4/4 writing"):
        assert stage in first.stderr

    text = (tmp_path / "out" / "summary.json").read_text()
    summary = json.loads(text)
    assert 0 < summary["seconds"] <= took
    for moment in ("before", "after"):
        figures = summary[moment]
        assert list(figures) == list(Evaluation.model_fields)
        for name, figure in figures.items():
            assert figure["cases"] > 0, (moment, name)
            assert 0.0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1.0, (moment, name)
        assert figures["pass_at_1"]["cases"] == CASES
    assert len(first.stdout.splitlines()) == len(Evaluation.model_fields) + 1
    assert all(name in first.stdout for name in Evaluation.model_fields)

    page = (tmp_path / "out" / "report.html").read_text()
    assert RUN in page and "<svg" in page
    assert 'src="http' not in page and 'href="http' not in page

    store = LocalStore(tmp_path / "out" / "store")
    for role in ("generator", "verifier"):
        versions = published_versions(store, RUN, role)
        assert versions == [keys.model(RUN, role, step) for step in range(1, QUICK_STEPS + 1)]
        verify_version(store, versions[-1])

    paid, began = engine_answers(store), time.monotonic()
    again = demo(tmp_path)
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - began < took / 2
    assert again.stdout == first.stdout
    assert (tmp_path / "out" / "summary.json").read_text() == text
    assert engine_answers(store) == paid
