"""Reads run files and curriculum files, and recognizes a file of the other kind.

`load_runspec` and `load_curriculum` each know one kind only, and not the installed engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proofloop.config.curriculum_file import CURRICULUM_FILE, CurriculumSpec, load_curriculum
from proofloop.config.run_file import RunSpec, load_runspec, parse_runspec, read_fields
from proofloop.engine import get_engine
from proofloop.errors import ConfigError
from proofloop.schema.records import MODEL_ROLES

ONLY_IN_RUNS = RunSpec.model_fields.keys() - CurriculumSpec.model_fields.keys()
ONLY_IN_CURRICULA = CurriculumSpec.model_fields.keys() - RunSpec.model_fields.keys()


def read_run(file: Path | Mapping[str, Any]) -> RunSpec:
    """Read a run file, or check the fields of one. Raises ConfigError."""
    if not isinstance(file, Path):
        _check_engine(file)
        return parse_runspec(dict(file), "the run's fields")
    fields = read_fields(file, RunSpec)
    if _has_only(fields, ONLY_IN_CURRICULA, ONLY_IN_RUNS):
        raise ConfigError(
            f"{file} is a curriculum file, not a run file", f"use `proofloop iterate {file}`"
        )
    _check_engine(fields)
    return load_runspec(file)


def read_curriculum(file: Path) -> CurriculumSpec:
    """Read a curriculum file. Raises ConfigError."""
    fields = read_fields(file, CurriculumSpec, CURRICULUM_FILE)
    if _has_only(fields, ONLY_IN_RUNS, ONLY_IN_CURRICULA):
        raise ConfigError(
            f"{file} is a run file, not a curriculum file", f"use `proofloop run {file}`"
        )
    _check_engine(fields, trained=True)
    return load_curriculum(file)


def is_curriculum(file: Path) -> bool:
    """Whether the file is meant as a curriculum. Raises ConfigError if it is not TOML."""
    fields = read_fields(file, CurriculumSpec, f"a run.toml or {CURRICULUM_FILE}")
    return _has_only(fields, ONLY_IN_CURRICULA, ONLY_IN_RUNS)


def _has_only(fields: Mapping[str, Any], own: set[str], others: set[str]) -> bool:
    """Whether the file has a key of its `own` kind and none of the `others`. Unknown keys do not
    count.
    """
    return bool(fields.keys() & own) and not fields.keys() & others


def _check_engine(fields: Mapping[str, Any], *, trained: bool = False) -> None:
    """Check the engines' names before the models, because the engine decides which models must be
    named.
    """
    engine = fields.get("engine")
    if not isinstance(engine, dict):
        return
    tables = {"engine": engine, **{f"engine.{role}": engine.get(role) for role in MODEL_ROLES}}
    for name, table in tables.items():
        kind = table.get("kind") if isinstance(table, dict) else None
        if isinstance(kind, str):
            get_engine(kind, table=name, trainable=trained)
