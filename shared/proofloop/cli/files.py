"""The two kinds of file that people write, a run's and a curriculum's: which it is comes before
what is wrong in it.

`load_runspec` and `load_curriculum` know nothing of the other kind, nor of the engines that are
installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proofloop.config.curriculum_file import CURRICULUM_FILE, CurriculumSpec, load_curriculum
from proofloop.config.run_file import RunSpec, load_runspec, read_fields
from proofloop.engine import get_engine
from proofloop.errors import ConfigError
from proofloop.schema.records import MODEL_ROLES

OF_RUNS = RunSpec.model_fields.keys() - CurriculumSpec.model_fields.keys()
OF_CURRICULA = CurriculumSpec.model_fields.keys() - RunSpec.model_fields.keys()


def read_run(file: Path) -> RunSpec:
    """The run of a file. Raises ConfigError."""
    fields = read_fields(file, RunSpec)
    if _has_only(fields, OF_CURRICULA, OF_RUNS):
        raise ConfigError(
            f"{file} is a curriculum's file, not a run's",
            f"it goes with `proofloop iterate {file}`",
        )
    _check_engine(fields)
    return load_runspec(file)


def read_curriculum(file: Path) -> CurriculumSpec:
    """The curriculum of a file. Raises ConfigError."""
    fields = read_fields(file, CurriculumSpec, CURRICULUM_FILE)
    if _has_only(fields, OF_RUNS, OF_CURRICULA):
        raise ConfigError(
            f"{file} is a run's file, not a curriculum's", f"it goes with `proofloop run {file}`"
        )
    _check_engine(fields, trained=True)
    return load_curriculum(file)


def is_curriculum(file: Path) -> bool:
    """Whether it is meant as one. Raises ConfigError for what is no TOML."""
    return _has_only(
        read_fields(file, CurriculumSpec, f"a run.toml or {CURRICULUM_FILE}"), OF_CURRICULA, OF_RUNS
    )


def _has_only(fields: Mapping[str, Any], own: set[str], others: set[str]) -> bool:
    """Whether there is a key of one kind and none of the other; what neither knows says nothing."""
    return bool(fields.keys() & own) and not fields.keys() & others


def _check_engine(fields: Mapping[str, Any], *, trained: bool = False) -> None:
    """Check the engines' names before the models, because the engine decides which models must be
    named.
    """
    engine = fields.get("engine")
    if not isinstance(engine, dict):
        return
    for name, table in {
        "engine": engine,
        **{f"engine.{role}": engine.get(role) for role in MODEL_ROLES},
    }.items():
        kind = table.get("kind") if isinstance(table, dict) else None
        if isinstance(kind, str):
            get_engine(kind, table=name, trainable=trained)
