"""The generated pages are what the code says, and explain every key."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
from scripts.reference.pages import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == PAGES[name].text(), "run `make docs`"


@pytest.mark.parametrize("name", PAGES)
def test_every_row_has_a_meaning(name: str) -> None:
    assert re.findall(r"^\| `.*\|  \|$", PAGES[name].text(), re.MULTILINE) == []
