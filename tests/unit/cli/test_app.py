from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from proofloop.cli import main
from proofloop.cli.app import COMMANDS, app

HELP_WITHOUT_COMMANDS = """
import sys
from proofloop.cli import main
sys.argv = ["proofloop", "--help"]
try:
    main()
finally:
    heavy = {"pydantic", "structlog", "prometheus_client", "proofloop.config"} & set(sys.modules)
    print("imported:", sorted(heavy))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_the_first_sentence_of_each_commands_help(name: str) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    with root.make_context("proofloop", [], resilient_parsing=True) as context:
        _, command, _ = root.resolve_command(context, [name])
    limit = 200
    assert command.get_short_help_str(limit) == root.commands[name].get_short_help_str(limit)


def test_help_lists_whole_summaries_and_imports_no_command() -> None:
    found = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT_COMMANDS], capture_output=True, text=True, check=True
    )
    assert "doctor" in found.stdout
    assert "..." not in found.stdout.partition("Commands:")[2]  # no summary is cut off
    assert found.stdout.splitlines()[-1] == "imported: []"


def test_an_error_prints_no_escape_sequence_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('"\\u001b]0;title" = 1\n')
    monkeypatch.setattr("sys.argv", ["proofloop", "run", str(tmp_path / "run.toml")])
    with pytest.raises(SystemExit):
        main()
    assert "unknown key \ufffd]0;title" in capsys.readouterr().err
