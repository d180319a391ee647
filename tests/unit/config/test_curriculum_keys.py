"""docs/curriculum-keys.md says what the classes say that check a curriculum's file."""

from __future__ import annotations

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
from scripts.curriculum_keys import PAGE, page


def test_the_page_of_keys_is_what_its_script_writes():
    assert PAGE.read_text("utf-8") == page(), "python scripts/curriculum_keys.py writes it anew"


def test_every_key_has_a_meaning():
    assert "| None |" not in page()
