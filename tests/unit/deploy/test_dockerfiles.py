"""The Dockerfiles as text: every package that they install has one version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PIP_INSTALL = re.compile(r"\bpip\b[^&\n]* install\b([^&\n]*)")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_every_package_that_pip_installs_is_pinned(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    installed = [word for words in PIP_INSTALL.findall(text) for word in words.split()]
    named = [word for word in installed if word[0].isalpha() or "==" in word]
    pinned = re.compile(r"[a-z0-9-]+==[\d.]+|(requirements/)?[a-z]+\.txt|wheels/\*\.whl")
    assert named and [word for word in named if not pinned.fullmatch(word)] == []


def test_the_gpu_image_takes_each_library_from_one_lock() -> None:
    text = (ROOT / "Dockerfile.gpu").read_text()
    names, files = re.findall(r"grep -hE '\^\((.*)\)==' (.*) > pins.txt", text)[0]
    locks = "\n".join((ROOT / file).read_text() for file in files.split())
    found = {name: len(re.findall(rf"(?m)^{name}==", locks)) for name in names.split("|")}
    assert found == dict.fromkeys(found, 1)
