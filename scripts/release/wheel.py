"""The distribution: built, then installed and run in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from scripts.release.findings import DONE, FAILED, ROOT, Finding

TRAINER = "pip install 'proofloop-math[trainer]'"


def check(version: str, folder: Path) -> Iterator[Finding]:
    run(sys.executable, "-m", "hatchling", "build", "--directory", str(folder / "dist"), cwd=ROOT)
    wheel = folder / "dist" / f"proofloop_math-{version}-py3-none-any.whl"
    if not wheel.is_file():
        built = ", ".join(path.name for path in (folder / "dist").iterdir())
        yield Finding("wheel", FAILED, f"built {built}, expected {wheel.name}")
        return
    yield Finding("wheel", DONE, f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
    began = time.monotonic()
    program = install(wheel, folder / "venv")
    yield Finding("installed alone", DONE, f"in {time.monotonic() - began:.0f} s")
    yield from started(program, folder)


def install(wheel: Path, into: Path) -> Path:
    """Install the wheel with pip in a new environment. Returns its command."""
    venv.create(into, with_pip=True)
    lock = str(ROOT / "requirements" / "light.txt")
    pip = [str(into / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, str(wheel), "--constraint", lock)
    return into / "bin" / "proofloop"


def started(program: Path, folder: Path) -> Iterator[Finding]:
    """Commands that need no torch, and the refusal of one that does, without compiler and git."""
    for words in (
        ["--version"],
        ["serve", "labeler", "--check"],
        ["init", "rehearsal", "--engine", "simulated"],
        ["run", "rehearsal/run.toml"],
    ):
        done = run(str(program), *words, cwd=folder, alone=True)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        yield Finding(f"proofloop {words[0]}", FAILED if done.returncode else DONE, last)
    refused = run(str(program), "demo", cwd=folder, alone=True)
    named = TRAINER in refused.stderr
    yield Finding("proofloop demo without torch", DONE if named else FAILED, f"names {TRAINER}")


def run(
    *command: str, cwd: Path | None = None, alone: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command. `alone`: without programs on PATH, and a failure is for the caller."""
    surroundings = {"PATH": "", "HOME": str(cwd)} if alone else dict(os.environ)
    return subprocess.run(
        command, cwd=cwd, env=surroundings, capture_output=True, text=True, check=not alone
    )
