"""The examples of the page on Python run as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")

ROOT = Path(__file__).parents[2]


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "how-to" / "python.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for example in examples:
        exec(example, {})
    assert len(examples) == 3
    assert "accepted 1.0" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
