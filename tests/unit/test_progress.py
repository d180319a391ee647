"""What a person sees of long work."""

from __future__ import annotations

import pytest

from proofloop.cli import common
from proofloop.ledger import Progress


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: clock[0])
    line = common.ProgressLine()
    for labeled in range(41):
        line.show("run", Progress(planned=40, labeled=labeled))
        clock[0] += 1.0
    line.show("run", Progress(planned=40, labeled=40))
    line.show("run", Progress(planned=50, labeled=40))  # a search that goes on
    said = [text.partition(" proofs")[0] for text in capsys.readouterr().err.splitlines()]
    assert said == ["run: 0/40", "run: 15/40", "run: 30/40", "run: 40/40", "run: 40/50"]
