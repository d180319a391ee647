"""The generated pages are what the code says, and explain every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
from scripts.reference.pages import FOLDER, PAGES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == PAGES[name].text(), "run `make docs`"


@pytest.mark.parametrize("name", PAGES)
def test_defaults_are_written_as_in_a_file(name: str) -> None:
    assert re.findall(r"`\"\w+\(.*?\)\"`", PAGES[name].text()) == []


@pytest.mark.parametrize("name", PAGES)
def test_every_row_has_a_meaning(name: str) -> None:
    assert re.findall(r"^\| `.*\|  \|$", PAGES[name].text(), re.MULTILINE) == []


def test_every_environment_variable_of_the_code_is_explained() -> None:
    files = [
        path
        for folder in ("shared", "services", "serving")
        for ending in ("*.py", "*.sh")
        for path in (ROOT / folder).rglob(ending)
    ]
    code = "".join(path.read_text("utf-8") for path in files)
    named = set(re.findall(r"PROOFLOOP_[A-Z][A-Z0-9_]*[A-Z]", code)) - {"PROOFLOOP_S3"}
    assert sorted(named - set(re.findall(r"PROOFLOOP_\w+", PAGES["environment.md"].text()))) == []
