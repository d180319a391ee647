"""The examples of the extension guide run as they are written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from proofloop.testing import EngineSubject

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def names_of(first_line: str) -> dict[str, Any]:
    """What the example defines that contains this line."""
    (code,) = [block for block in BLOCKS if first_line in block]
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_domain_poses_problems_of_each_split() -> None:
    domain = names_of("class Gcd(Domain)")["Gcd"]()
    questions = {
        domain.pose(index, split=split, seed=0).question
        for index in range(3)
        for split in ("train", "validation", "test")
    }
    assert len(questions) == 9


def test_the_checker_names_a_defect() -> None:
    checker = names_of("class GcdChecker(Checker)")["GcdChecker"]()
    assert checker.check_proof("Show that gcd(4, 6) = 2.", "6 - 4 = 2").score == 1.0
    assert checker.check_proof("Show that gcd(4, 6) = 2.", "").defects[0].kind == "wrong result"
    assert checker.check_proof("Show that 1 = 1.", "...") is None
    assert checker.check_critique("Show that gcd(4, 6) = 2.", "...", "...") is None


def test_the_engine_opens_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("my_library")
    reply = SimpleNamespace(text="yes", prompt_tokens=2, tokens=1, seconds=0.1)
    library.Client = lambda address: SimpleNamespace(ask=lambda *_: reply)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_library", library)
    names = names_of("class MyEngine(ThreadedEngine)")
    engine = names["ENGINE"].open({"address": "here"}, Path)
    request = EngineSubject(engine, "m", lambda request: request).ask()
    assert engine.submit(request).result(5).text == "yes"
    engine.close()
