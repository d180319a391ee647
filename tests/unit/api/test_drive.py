"""What is checked before a run begins in this process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from proofloop.api.drive import drive_here
from proofloop.config.run_file import parse_runspec
from proofloop.errors import ConfigError, Interrupted
from proofloop.runs.spec import find_spec
from proofloop.store import LocalStore


def test_a_run_whose_roles_are_not_installed_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proofloop.worker.roles.entry_points", lambda **_: ())
    fields = {
        "name": "small",
        "problems": {"domain": "nano", "count": 1},
        "engine": {"kind": "simulated"},
    }
    store = LocalStore(tmp_path)
    spec = parse_runspec(fields, "run.toml")
    with pytest.raises(ConfigError, match="role 'generator' is not installed"):
        drive_here(store, spec, threading.Event(), lambda progress: None, resume=False)
    assert find_spec(store, "small") is None


def test_a_stop_ends_the_check_of_a_model_that_does_not_answer(tmp_path: Path) -> None:
    fields = {
        "name": "small",
        "problems": {"domain": "nano", "count": 1},
        "engine": {"kind": "simulated", "settings": {"latency_s": 3600}},
    }
    store, stopping = LocalStore(tmp_path), threading.Event()
    spec = parse_runspec(fields, "run.toml")
    threading.Timer(0.1, stopping.set).start()
    with pytest.raises(Interrupted):
        drive_here(store, spec, stopping, lambda progress: None, resume=False)
    assert find_spec(store, "small") is None
