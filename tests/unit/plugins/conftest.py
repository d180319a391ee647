"""A package from outside, installed for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

import proofloop.method.prompts

Install = Callable[[str], None]

MODULE = """
from pathlib import Path
from proofloop.engine.info import EngineInfo
from proofloop.engine.threaded import ThreadedEngine
from proofloop.method.domains import Checker, Domain, ProofFinding
from proofloop.schema.records import Problem
from proofloop.store import LocalStore

class Parity(Domain):
    name = "parity"
    prompt_pack = "parity-prompts"

    def pose(self, index, *, split, seed):
        return Problem(id=f"parity-{index}", question=f"Is {index} even?")

class Broken(Domain):
    name = "broken"

    def pose(self, index, *, split, seed):
        return Problem(id=undefined)

MODULE_NAME = __name__

class Unfinished(Domain):
    name = "unfinished"

class Careless(ThreadedEngine):
    def answer(self, request, cancelled):
        return undefined

ENGINE = EngineInfo(open=lambda settings, resolve: Careless(), needs_model_names=False)

def open_url(url):
    return LocalStore(Path(url.removeprefix("disk://")))
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package `parity_plugin` with these lines as its entry points."""

    def install(entry_points: str) -> None:
        folder = tmp_path / "site"
        package, info = folder / "parity_plugin", folder / "parity_plugin-1.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text(MODULE)
        packs = Path(proofloop.method.prompts.__file__).parent / "packs"
        copytree(packs / "math", package / "prompts")
        (package / "empty").mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parity-plugin\nVersion: 1\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(folder)

    return install
