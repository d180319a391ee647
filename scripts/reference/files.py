"""The keys of run files and curriculum files, from the classes that check them."""

from __future__ import annotations

from pydantic import BaseModel
from scripts.reference.tables import about, keys_table, section_class

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import RunSpec
from proofloop_trainer.grpo.settings import GrpoSettings

TOP = "Top level"
STEP_OF_A_RUN = "`settings` of `[training.ROLE]`"
STEP_OF_A_STAGE = "`settings` of `[verifier]`, `[meta_verifier]`, `[enhanced]`, `[generator]`"
DEPENDS = {
    TOP: {"name": "the file's name without `.toml`", "prompts": "the problems' pack"},
    STEP_OF_A_STAGE: {
        "decay_steps": "the stage's `steps`",
        "temperature": "the temperature in `[sampling]`",
        "seed": "the curriculum's seed",
    },
    STEP_OF_A_RUN: {"temperature": "the temperature in `[sampling]`", "seed": "the run's seed"},
}
"""Defaults that depend on other keys."""


def run_file() -> list[str]:
    return _sections(RunSpec, STEP_OF_A_RUN)


def curriculum_file() -> list[str]:
    return _sections(CurriculumSpec, STEP_OF_A_STAGE)


def _sections(root: type[BaseModel], step: str) -> list[str]:
    titled = {TOP: root, **_tables(root, ""), step: GrpoSettings}
    return [
        "\n\n".join([f"## {title}", about(kind), keys_table(kind, defaults=DEPENDS.get(title, {}))])
        for title, kind in titled.items()
    ]


def _tables(kind: type[BaseModel], prefix: str) -> dict[str, type[BaseModel]]:
    """The TOML tables below a class, by title. Tables with the same class share one title."""
    found: dict[type[BaseModel], list[str]] = {}
    for name, field in kind.model_fields.items():
        if inner := section_class(field):
            found.setdefault(inner, []).append(f"{prefix}{name}")
    titles: dict[str, type[BaseModel]] = {}
    for inner, names in found.items():
        if any(not section_class(field) for field in inner.model_fields.values()):
            titles[", ".join(f"`[{name}]`" for name in names)] = inner
        titles |= _tables(inner, f"{names[0]}.")
    return titles
