"""The options of `proofloop plan`, checked and by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from proofloop.errors import ConfigError
from proofloop.runs.planning.capacity import GPUS_A_NODE
from proofloop.runs.planning.estimate import GivenNumbers, NumberByRole
from proofloop.schema.records import MODEL_ROLES, PIPELINE_ROLES

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

_ByRole = list[str] | None

FileArgument = Annotated[
    Path | None, typer.Argument(help="A run.toml: budgets, sampling, flow and prices.")
]
ProblemsOption = Annotated[
    float, typer.Option(min=0.001, max=MOST, help="The load: problems an hour.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="A run in the store, for its mean tokens, call times, issues and early stops.",
    ),
]
TokensPerSecondOption = Annotated[
    _ByRole,
    typer.Option(
        help="Tokens a second of a fully loaded replica of your model servers; leave it out"
        " for hosted models."
    ),
]
StreamsOption = Annotated[
    _ByRole, typer.Option(help="Calls in flight at a fully loaded replica; default: 64.")
]
GpusOption = Annotated[_ByRole, typer.Option(help="GPUs of a replica; default: 1.")]
GpuHourOption = Annotated[float, typer.Option(min=0, max=MOST, help="Price of a GPU for an hour.")]
AnswerTokensOption = Annotated[
    _ByRole,
    typer.Option(help="Tokens of an answer; default: the run's mean, else max_tokens."),
]
PromptTokensOption = Annotated[
    _ByRole, typer.Option(help="Tokens of a prompt; default: the run's mean, else 2000.")
]
CallSecondsOption = Annotated[
    _ByRole,
    typer.Option(
        help="Time of a call; default: answer tokens x streams / tokens per second, else the"
        " run's mean."
    ),
]
IssueShareOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of analyses that report an issue and are judged; default: the run's, else 0.5.",
    ),
]
BusyOption = Annotated[
    float, typer.Option(min=0.05, max=1, help="Intended share of busy time of the replicas.")
]
ConcurrencyOption = Annotated[
    _ByRole,
    typer.Option(
        help="Messages that a pod handles at the same time; default: [flow] of the run file."
    ),
]
BacklogOption = Annotated[
    float,
    typer.Option(
        min=0.1, max=MOST, help="How many messages for each slot make KEDA start another pod."
    ),
]
ValuesOption = Annotated[
    bool, typer.Option("--values", help="Print only the chart's values, for a file.")
]


@dataclass(frozen=True)
class Options:
    """The checked options. `given`: the numbers that replace guesses about the run."""

    file: Path | None
    measured: str | None
    store: Path | None
    problems_per_hour: float
    gpu_hour: float
    busy: float
    backlog_rounds: float
    given: GivenNumbers
    concurrency: NumberByRole


def by_role(option: str, texts: list[str] | None) -> NumberByRole:
    """The numbers of `--option 5 --option verifier=7` for each role. Raises ConfigError."""
    roles = PIPELINE_ROLES if option == "--concurrency" else MODEL_ROLES
    found: dict[str, float] = {}
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
