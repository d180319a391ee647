"""Each service installs and starts alone, and so does the one distribution that people install: its
wheel, in a virtual environment with what it asks for and nothing else.

That is linked over from this environment, distribution by distribution, so that no network is
needed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HANDLES = {
    "generator": ["ModelPublished.generator", "ProblemPosed"],
    "verifier": ["ModelPublished.verifier", "ProofWritten"],
    "meta_verifier": ["ModelPublished.meta_verifier", "ProofReviewed"],
    "labeler": ["ReviewJudged"],
    "trainer": ["FineTuningPosed", "ProofLabeled"],
}

Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds the wheel of a folder, once."""
    wheels: dict[str, Path] = {}

    def wheel_of(folder: str) -> Path:
        if folder not in wheels:
            into = tmp_path_factory.mktemp("wheel")
            pip(
                "wheel",
                "--no-deps",
                "--no-build-isolation",
                "--wheel-dir",
                str(into),
                str(ROOT / folder),
            )
            (wheels[folder],) = into.glob("*.whl")
        return wheels[folder]

    return wheel_of


@pytest.mark.slow
@pytest.mark.parametrize("role", HANDLES)
def test_a_service_installs_and_starts_alone(role: str, build: Build, tmp_path: Path) -> None:
    libraries = ["shared", "serving"] if role == "trainer" else ["shared"]
    wheels = [build(folder) for folder in (*libraries, f"services/{role}")]
    environment = Environment(tmp_path / "venv")
    for name in closure(wheels):
        environment.take_over(name)
    environment.install(wheels)

    started = environment.run("proofloop", "serve", role, "--check")
    assert (started.returncode, started.stderr) == (0, "")
    expected = {
        "role": role,
        "handles": HANDLES[role],
        "proofloop": metadata_of(wheels[0])["Version"],
    }
    assert json.loads(started.stdout) == expected
    assert not (tmp_path / "venv" / "proofloop-data").exists()  # it only looks

    imported = environment.run("python", "-c", "import torch")
    assert imported.returncode == (0 if role == "trainer" else 1), imported.stderr
    other = environment.run(
        "proofloop", "serve", "labeler" if role == "trainer" else "trainer", "--check"
    )
    assert (other.returncode, other.stdout) == (2, "")
    assert f"installed: {role}" in other.stderr


@pytest.mark.slow
def test_the_distribution_starts_the_light_roles_and_names_the_extra_of_the_others(
    build: Build, tmp_path: Path
) -> None:
    wheel = build(".")
    environment = Environment(tmp_path / "venv")
    for name in closure([wheel]):
        environment.take_over(name)
    environment.install([wheel])

    for role in ("generator", "verifier", "meta_verifier", "labeler"):
        started = environment.run("proofloop", "serve", role, "--check")
        assert (started.returncode, started.stderr) == (0, "")
    for command in (["serve", "trainer", "--check"], ["nano", "train"], ["demo"]):
        refused = environment.run("proofloop", *command)
        assert refused.returncode == 2
        assert "pip install 'proofloop-math[trainer]'" in refused.stderr
    assert not (tmp_path / "venv" / "demo-out").exists()


@pytest.mark.parametrize("folder", [".", "shared", *(f"services/{role}" for role in HANDLES)])
def test_a_wheel_says_what_it_is(folder: str, build: Build) -> None:
    metadata = metadata_of(build(folder))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The proofloop authors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Project-URL" not in metadata


class Environment:
    """A virtual environment without pip and without a way to see any other."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self._folder = folder
        (self._packages,) = folder.glob("lib/python*/site-packages")

    def take_over(self, name: str) -> None:
        """Link an installed distribution's files into this environment."""
        for file in importlib.metadata.files(name) or []:
            if ".." not in file.parts:
                target = self._packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(file.locate())

    def install(self, wheels: list[Path]) -> None:
        """Install the wheels; pip fails if anything they ask for is not here."""
        pip(
            "--python",
            str(self._folder / "bin" / "python"),
            "install",
            "--no-index",
            *map(str, wheels),
        )

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment in its folder, with nothing of this process's
        surroundings.
        """
        surroundings = {"PATH": os.defpath, "HOME": str(self._folder)}
        command = [str(self._folder / "bin" / program), *arguments]
        return subprocess.run(
            command, cwd=self._folder, env=surroundings, capture_output=True, text=True, timeout=120
        )


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def metadata_of(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def closure(wheels: list[Path]) -> set[str]:
    """The distributions that these wheels need here, and what those need, without the wheels
    themselves.
    """
    metadata = [metadata_of(wheel) for wheel in wheels]
    own = {canonicalize_name(one["Name"]) for one in metadata}
    waiting = [
        need for one in metadata for need in needs(one.get_all("Requires-Dist", []), frozenset())
    ]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = need = waiting.pop()
        if name not in own and need not in seen:
            seen.add(need)
            waiting += needs(importlib.metadata.requires(name) or [], extras)
    return {name for name, _ in seen}


def needs(requirements: list[str], extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Name and extras of each requirement that applies on this machine with these extras."""
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)
