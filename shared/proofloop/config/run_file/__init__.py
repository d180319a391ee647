"""The run file: a TOML file that defines a run. The store keeps it with the run.

[problems] (or [fine_tuning]) is required, and [models] for an engine that has no default model; all
other keys have defaults.
"""

from proofloop.config.run_file.engine import EngineSection, check_loads_versions, endpoint_tables
from proofloop.config.run_file.loading import (
    check_has_checker,
    load_prices,
    load_runspec,
    parse_runspec,
    read_fields,
)
from proofloop.config.run_file.prices import Budget, EnginePrices, Prices
from proofloop.config.run_file.sections import Models, RoleSampling, SamplingSection
from proofloop.config.run_file.spec import RunSpec

__all__ = [
    "Budget",
    "EnginePrices",
    "EngineSection",
    "Models",
    "Prices",
    "RoleSampling",
    "RunSpec",
    "SamplingSection",
    "check_has_checker",
    "check_loads_versions",
    "endpoint_tables",
    "load_prices",
    "load_runspec",
    "parse_runspec",
    "read_fields",
]
