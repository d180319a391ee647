"""`proofloop init`: the files work as they are, and none is overwritten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proofloop.api import Run
from proofloop.api.files import read_run
from proofloop.cli.init.command import init
from proofloop.config.problem_file import problems_of
from proofloop.errors import ConfigError

ENGINES = ("openai", "triton", "local", "simulated")


@pytest.mark.parametrize("engine", ENGINES)
def test_each_run_file_is_valid_and_finds_its_problems(engine: str, tmp_path: Path) -> None:
    init(tmp_path / "mine", engine=engine, url=None, model=None)
    spec = read_run(tmp_path / "mine" / "run.toml")
    assert (spec.name, spec.engine.kind) == ("mine", engine)
    assert len(list(problems_of(spec))) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_the_optional_keys_are_valid_too(engine: str, tmp_path: Path) -> None:
    init(tmp_path / "mine", engine=engine, url=None, model=None)
    file = tmp_path / "mine" / "run.toml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(uncommented(line) for line in lines))
    spec = read_run(file)
    assert (spec.search.rounds, spec.budget.hours) == (4, 8.0)


def test_address_and_model_are_kept_exactly(tmp_path: Path) -> None:
    odd = 'http://host:1/"a\\b'
    init(tmp_path / "mine", engine="openai", url=odd, model="org/$name")
    spec = read_run(tmp_path / "mine" / "run.toml")
    assert spec.engine.settings["base_url"] == odd
    assert {spec.models.generator, spec.models.verifier, spec.models.meta_verifier} == {"org/$name"}


def test_the_rehearsal_runs_as_it_is(tmp_path: Path) -> None:
    init(tmp_path / "mine", engine="simulated", url=None, model=None)
    proofs = list(Run.create(tmp_path / "mine" / "run.toml", store=tmp_path / "store"))
    assert len(proofs) == 16 and {proof.outcome for proof in proofs} > {"accepted", "rejected"}


@pytest.mark.parametrize("name", ["run.toml", "problems.json"])
def test_nothing_is_overwritten_and_nothing_half_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} exists"):
        init(tmp_path, engine="openai", url=None, model=None)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(name, "mine")]


def test_what_the_file_could_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'a b' cannot be part of a key"):
        init(tmp_path / "a b", engine="openai", url=None, model=None)
    with pytest.raises(ConfigError, match="--url and --engine local do not go together"):
        init(tmp_path / "mine", engine="local", url="host:1", model=None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run.toml").write_text("mine")
    with pytest.raises(ConfigError, match=r"run.toml is a file\nhint: give the folder"):
        init(tmp_path / "run.toml", engine="openai", url=None, model=None)


def uncommented(line: str) -> str:
    """A commented key or table without its mark; other lines unchanged."""
    return re.sub(r"^# (?=\[|\w+ = )", "", line)
