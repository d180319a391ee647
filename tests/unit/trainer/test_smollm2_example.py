"""The example of a small language model: its demonstrations and its curriculum."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop.config.curriculum_file import SAMPLED, load_curriculum
from proofloop.config.demonstration_file import read_answer, read_demonstrations
from proofloop.curriculum import compose
from proofloop.method.prompts import load_pack
from proofloop_trainer.role_training import role_settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "smollm2"


def test_the_demonstrations_are_readable_answers_of_each_role(tmp_path: Path) -> None:
    script, file = runpy.run_path(str(EXAMPLE / "demonstrations.py")), tmp_path / "rows.jsonl"
    script["make"](file)
    pack, roles = load_pack("nano"), Counter[str]()
    for row in read_demonstrations(file, pack):
        role = script["ROLES"][row.prompt[0].content.split()[0]]
        assert read_answer(role, row.answer, pack).outcome == "valid", row.origin
        roles[role] += 1
    assert roles == dict.fromkeys(script["ROLES"].values(), script["EACH"])


def test_the_curriculum_learns_the_formats_first_and_trains_every_role() -> None:
    spec = load_curriculum(EXAMPLE / "curriculum.toml")
    kinds = [stage.kind for stage in spec.stages]
    assert kinds[0] == "cold_start" and set(SAMPLED) <= set(kinds)
    assert str(spec.cold_start.demonstrations) == "demonstrations.jsonl"
    for kind in SAMPLED:
        assert role_settings(compose.example_of(spec, kind), SAMPLED[kind]).kl_coefficient == 0
