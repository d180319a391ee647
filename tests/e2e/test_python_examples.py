"""The examples of the page on Python run as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proofloop.cli.init.command import init

pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")

ROOT = Path(__file__).parents[2]


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    init(Path("rehearsal"), engine="simulated", url=None, model=None)
    page = (ROOT / "docs" / "how-to" / "python.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for example in examples:
        exec(example, {})
    assert len(examples) == 3
    assert "accepted 1.0" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
