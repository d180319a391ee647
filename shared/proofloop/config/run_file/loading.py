"""Reads and checks a run file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from proofloop.config.explain import BACKSLASHES, EXAMPLES, explain, known_keys
from proofloop.config.run_file.engine import check_loads_versions
from proofloop.config.run_file.prices import Prices
from proofloop.config.run_file.spec import SOURCES_HINT, RunSpec
from proofloop.config.section import Section
from proofloop.errors import ConfigError
from proofloop.method.domains import load_checker
from proofloop.schema.ids import check_id


def load_runspec(file: Path) -> RunSpec:
    """Read and check a run file. Raises ConfigError."""
    spec = parse_runspec(read_fields(file, RunSpec), str(file))
    if spec.problems.material or spec.problems.has_proofs:
        key = "material" if spec.problems.material else "has_proofs"
        raise ConfigError(
            f"[problems] {key} = true in {file}: a run file cannot set it", SOURCES_HINT
        )
    return spec


class _PricesFile(Section):
    prices: Prices


def load_prices(file: Path) -> Prices:
    """Read [prices] of a TOML file, such as a run file; other tables are ignored. Raises
    ConfigError.
    """
    fields = read_fields(file, RunSpec, "a TOML file with [prices]")
    known = f"known keys: {known_keys(Prices)}"
    if "prices" not in fields:
        raise ConfigError(f"{file} has no [prices]", known)
    try:
        prices = _PricesFile.model_validate({"prices": fields["prices"]}).prices
    except ValidationError as error:
        raise explain(error, str(file), _PricesFile) from error
    if prices == Prices():
        raise ConfigError(f"[prices] in {file} has no price above 0", known)
    return prices


def read_fields(file: Path, root: type[BaseModel], expected: str = "a run.toml") -> dict[str, Any]:
    """Read the fields of a TOML file, with its folder as `base`. Raises ConfigError.

    `root`: the class of the whole file. `expected`: the kind of file, for errors.
    """
    try:
        fields = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", f"give the path of {expected}"
        ) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or a too large number
        is_path = re.search("hex value|Unescaped", str(error))
        hint = BACKSLASHES if is_path else EXAMPLES
        raise ConfigError(f"{file} is not TOML: {error}", hint) from error
    if "base" in fields:
        raise ConfigError(f"unknown key base in {file}", f"known keys: {known_keys(root)}")
    return {"name": file.stem, "base": file.parent.absolute(), **fields}


def parse_runspec(fields: dict[str, Any], origin: str) -> RunSpec:
    """Check the fields of a run file. Raises ConfigError for the first invalid one."""
    try:
        spec = RunSpec.model_validate(fields)
    except ValidationError as error:
        raise explain(error, origin, RunSpec) from error
    check_id(spec.name, f"name in {origin}")
    if spec.seed_as is not None:
        check_id(spec.seed_as, f"seed_as in {origin}")
    check_has_checker(spec)
    _check_all_critiques_come(spec, origin)
    for role in spec.training.roles:
        table = spec.engine.table_of(role)
        trained, adapters = f"[training.{role}]", spec.lora is not None
        check_loads_versions(spec.engine.of(role), trained, origin, table, adapters=adapters)
    return spec


def _check_all_critiques_come(spec: RunSpec, origin: str) -> None:
    """Raise ConfigError if a reward needs all critiques and some may never be requested. Not a
    validator, because older runs in the store must stay readable.
    """
    if not spec.labeling.stop_early:
        return
    if "verifier" in spec.training.roles:
        what, why = "[training.verifier]", "the verifier learns from"
    elif spec.reward.proof_score == "mean":
        what, why = '[reward] proof_score = "mean"', "R_Y is the mean over"
    else:
        return
    raise ConfigError(
        f"[labeling] stop_early = true and {what} in {origin} do not go together: {why} all n"
        " critiques of a proof",
        "set stop_early = false",
    )


def check_has_checker(spec: RunSpec) -> None:
    """Raise ConfigError if a checker is to label the proofs, and the domain has none."""
    if spec.labeling.by == "checker" and spec.problems.checked_by is not None:
        load_checker(spec.problems.checked_by)
