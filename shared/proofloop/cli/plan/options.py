"""The options of `proofloop plan`, checked and by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proofloop.errors import ConfigError
from proofloop.runs.planned import PIPELINE_ROLES
from proofloop.runs.planning.capacity import GPUS_A_NODE
from proofloop.schema.records import MODEL_ROLES

ByRole = dict[str, float]

MOST = 1e9
"""The limit of every number: far above any real load, so that no result overflows."""

WHOLE = ("--gpus", "--concurrency")
"""The options that take whole numbers."""

LEAST: Mapping[str, float] = {
    "--tokens-per-second": 0.001,
    "--streams": 1,
    "--gpus": 1,
    "--answer-tokens": 1,
    "--prompt-tokens": 0,
    "--call-seconds": 0.001,
    "--concurrency": 1,
}
"""The options that take a number for each role, with their least values."""


@dataclass(frozen=True)
class Options:
    """The checked options. `by_role`: the numbers of each role by option, without --concurrency."""

    file: Path | None
    measured: str | None
    store: Path | None
    problems_per_hour: float
    gpu_hour: float
    issue_share: float | None
    busy: float
    backlog_rounds: float
    by_role: Mapping[str, ByRole]
    concurrency: ByRole

    @property
    def given(self) -> Mapping[str, ByRole]:
        """The numbers that replace guesses about the run, by option."""
        share = {} if self.issue_share is None else {"all": self.issue_share}
        return {**self.by_role, "--issue-share": share}


def by_role(option: str, texts: list[str] | None) -> ByRole:
    """The numbers of `--option 5 --option verifier=7` for each role. Raises ConfigError."""
    roles = PIPELINE_ROLES if option == "--concurrency" else MODEL_ROLES
    found: ByRole = {}
    # a number for all roles comes first, so that those for single roles replace it
    for text in sorted(texts or (), key=lambda text: "=" in text):
        role, _, value = text.rpartition("=")
        if role and role not in roles:
            raise ConfigError(
                f"{option} {text}: unknown role {role!r}", f"use one of: {', '.join(roles)}"
            )
        found |= dict.fromkeys([role] if role else roles, _number(option, text, value))
    return found


def _number(option: str, text: str, value: str) -> float:
    hint = f"write {option} 5, or {option} verifier=5 for one role"
    try:
        number = float(value)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {value!r} is not a number", hint) from error
    least = LEAST[option]
    if not least <= number <= MOST:
        raise ConfigError(f"{option} {text}: must be a number from {least:g} to {MOST:g}", hint)
    if option in WHOLE and number % 1:
        raise ConfigError(f"{option} {text}: must be a whole number", hint)
    if option == "--gpus" and number > GPUS_A_NODE and number % GPUS_A_NODE:
        raise ConfigError(
            f"{option} {text}: a replica with more than {GPUS_A_NODE} GPUs takes whole nodes",
            f"give a multiple of {GPUS_A_NODE}",
        )
    return number
