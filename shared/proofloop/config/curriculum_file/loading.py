"""Reads and checks a curriculum file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from proofloop.config.curriculum_file.spec import CurriculumSpec
from proofloop.config.explain import explain
from proofloop.config.run_file import check_loads_versions, read_fields
from proofloop.errors import ConfigError
from proofloop.method.domains import domain_names
from proofloop.schema.ids import check_id

CURRICULUM_FILE = "a curriculum file"
"""The kind of file, for errors."""


def load_curriculum(file: Path) -> CurriculumSpec:
    """Read and check a curriculum file. Raises ConfigError."""
    try:
        spec = CurriculumSpec.model_validate(read_fields(file, CurriculumSpec, CURRICULUM_FILE))
    except ValidationError as error:
        raise explain(error, str(file), CurriculumSpec) from error
    check_id(spec.name, f"name in {file}")
    for key, domain in (("domain", spec.domain), ("harder", spec.harder)):
        if domain is not None and domain not in domain_names():
            raise ConfigError(
                f"{key} = {domain!r} in {file}: unknown domain",
                f"use one of: {', '.join(domain_names())}; or install the package that has it",
            )
    if spec.files:
        _check_beside_files(spec, file)
    adapters = spec.lora is not None
    check_loads_versions(spec.engine, "a curriculum", str(file), adapters=adapters)
    _check_keep(spec, file)
    return spec


def _check_beside_files(spec: CurriculumSpec, file: Path) -> None:
    """Raise ConfigError for keys that do not go with [files], or that [files] requires."""
    given = spec.model_fields_set
    if "domain" in given:
        raise ConfigError(
            f"domain and [files] in {file} do not go together: each gives the problems",
            "leave one of them out",
        )
    if "cold_start" in given and not spec.cold_start.has_source:
        raise ConfigError(
            f"[cold_start] in {file} has no demonstrations: only a domain brings its own, and"
            " [files] gives none",
            "set [cold_start] demonstrations or runs; or leave [cold_start] out, and set start to a"
            " model that follows instructions",
        )
    if "start" not in given:
        raise ConfigError(
            f"start is missing in {file}: a curriculum with [files] has no default model",
            "set start to a model that follows instructions, by the name that the engine uses",
        )


def _check_keep(spec: CurriculumSpec, file: Path) -> None:
    """Raise ConfigError if the consolidation can keep no proof: the model would silently unlearn to
    prove.
    """
    keep = spec.consolidate.keep
    most = spec.generator.alpha + spec.generator.beta
    if keep > most:
        raise ConfigError(
            f"[consolidate] keep = {keep:g} in {file} is above the highest reward of a proof:"
            f" [generator] alpha + beta = {most:g}",
            f"set keep below {most:g}, or choose alpha and beta with sum 1",
        )
