"""What commands print on stdout."""

from __future__ import annotations

import pytest

from proofloop.cli.common import emit


def test_a_table_is_not_folded_where_stdout_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    emit(
        [{"what": "engines", "found": "local, openai, simulated, triton " * 5, "calls": 357}],
        as_json=False,
    )
    printed = capsys.readouterr().out
    assert "local, openai, simulated, triton " * 5 in printed
    assert " 357 " in printed


def test_a_table_keeps_to_the_width_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    emit([{"what": "engines", "found": "local, openai, simulated, triton"}], as_json=False)
    printed = capsys.readouterr().out
    assert "triton" in printed and "local, openai, simulated, triton" not in printed


def test_an_escape_sequence_in_a_cell_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"question": "Prove \x1b]0;title\x07 it."}], as_json=False)
    assert "Prove \ufffd]0;title\ufffd it." in capsys.readouterr().out
