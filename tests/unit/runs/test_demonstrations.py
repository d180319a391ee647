"""The demonstrations of a run in the store: kept once, whatever becomes of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.errors import ConfigError
from proofloop.runs.create import create_run
from proofloop.runs.fine_tuning import demonstrations
from proofloop.runs.fine_tuning.demonstrations import demonstrations_of
from proofloop.runs.spec import find_spec
from proofloop.store import LocalStore


def chat(answer: str) -> dict[str, Any]:
    turns = {"user": "Hello", "assistant": answer}
    return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}


def write(folder: Path, *answers: str) -> RunSpec:
    rows = (json.dumps(chat(answer)) for answer in answers)
    (folder / "rows.jsonl").write_text("\n".join(rows))
    section = {"demonstrations": "rows.jsonl"}
    return parse_runspec({"name": "sft", "base": folder, "fine_tuning": section}, "a test")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def kept(store: LocalStore) -> list[str]:
    return [row.answer for row in demonstrations_of(store, "sft")]


def test_the_rows_of_the_file_are_stored_with_the_run_in_order(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstrations, "PORTION", 2)
    spec = write(tmp_path, "a", "b", "c")
    create_run(store, spec, resume=False)
    assert kept(store) == ["a", "b", "c"]
    create_run(store, spec, resume=True)
    (tmp_path / "rows.jsonl").unlink()
    create_run(store, spec, resume=True)
    assert kept(store) == ["a", "b", "c"]


def test_a_missing_portion_is_added_when_the_run_is_resumed(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demonstrations, "PORTION", 2)
    spec = write(tmp_path, "a", "b", "c")
    create_run(store, spec, resume=False)
    store.path("runs/sft/demonstrations/000001.json").unlink()
    create_run(store, spec, resume=True)
    assert kept(store) == ["a", "b", "c"]


@pytest.mark.parametrize("others", [("a", "x"), ("a",), ("a", "b", "c")])
def test_other_rows_than_the_run_began_with_are_refused(
    store: LocalStore, tmp_path: Path, others: tuple[str, ...]
) -> None:
    create_run(store, write(tmp_path, "a", "b"), resume=False)
    with pytest.raises(ConfigError, match=r"has other rows than run 'sft' began with"):
        create_run(store, write(tmp_path, *others), resume=True)
    assert kept(store) == ["a", "b"]


def test_a_bad_row_is_named_before_the_run_is_stored(store: LocalStore, tmp_path: Path) -> None:
    spec = write(tmp_path, "a", "")
    with pytest.raises(ConfigError, match=r"row 2 of rows\.jsonl"):
        create_run(store, spec, resume=False)
    assert find_spec(store, "sft") is None
