"""`proofloop runs steps`: shows the figures that the trainer recorded for each training step."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_store
from proofloop.cli.runs.tensorboard import write_events
from proofloop.config.curriculum_file import SAMPLED
from proofloop.curriculum.status import find_curriculum, training_steps
from proofloop.errors import ConfigError
from proofloop.runs.planned import steps_of
from proofloop.schema.records import ALL_ROLES, TrainingStep
from proofloop.store import Store

COLUMNS = {
    "kl": ("KL", ".4f"),
    "entropy": ("entropy", ".3f"),
    "mean_ratio": ("ratio", ".3f"),
    "clip_share": ("clipped", ".3f"),
    "off_policy_share": ("off policy", ".3f"),
    "grad_norm": ("grad norm", ".3f"),
    "completion_length": ("length", ".1f"),
    "truncated_share": ("cut off", ".3f"),
}
"""The figures in the table: their column and number format."""


def steps(
    run: Annotated[str, typer.Argument(help="The name of a run or a curriculum.")],
    stage: Annotated[
        str | None,
        typer.Argument(
            help="A role of a run, or a stage of a curriculum such as 1-verifier; default: all."
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard",
            metavar="FOLDER",
            help="Write all figures as TensorBoard's event files to this folder, a folder a stage.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the training steps of a run or curriculum.

    The table has the main figures, --json all of them. clipped: share of tokens with a clipped
    gradient. off policy: share of answers dropped by the mask. length: mean tokens of an answer.
    cut off: share of answers that reached max_tokens. no signal: groups with equal rewards, of all
    groups. tokens/s: trained tokens a second, without sampling. docs/how-to/train.md explains the
    others.
    """
    data = open_store(store, must_exist=True)
    found = _choose(_all_steps(data, run), run, stage)
    if tensorboard:
        write_events(found, tensorboard)
        print(tensorboard)
        return
    if as_json:
        records = [
            {"stage": name, **step.model_dump()} for name, of in found.items() for step in of
        ]
        print(json.dumps(records, indent=2))
        return
    for name, of in found.items():
        if of or stage:
            parts = sorted({part for step in of for part in step.reward_parts})
            emit(
                [_row(step, parts) for step in of],
                as_json=False,
                title=f"steps of {name}",
                is_wide=True,
            )
    if not any(found.values()) and not stage:
        emit([], as_json=False, title=f"training steps of {run} yet")


Steps = dict[str, list[TrainingStep]]
"""The training steps by role of a run, or by stage of a curriculum."""


def _all_steps(store: Store, run: str) -> Steps:
    """All stages in order, a refresh behind its stage. Raises ConfigError for an unknown run."""
    curriculum = find_curriculum(store, run)
    if curriculum is None:
        roles = (*need_run(store, run).training.roles, "all")
        found = steps_of(store, run, roles)
        return {role: steps for role, steps in found.items() if steps or role != "all"}
    places = {stage.name: place for place, stage in enumerate(curriculum.stages)}
    trained = [stage.name for stage in curriculum.stages if stage.kind in SAMPLED]
    found = {**{name: [] for name in trained}, **training_steps(store, curriculum)}
    names = sorted(found, key=lambda name: (places.get(_stage_of(name), -1), _by_number(name)))
    return {name: found[name] for name in names}


def _choose(found: Steps, run: str, stage: str | None) -> Steps:
    """The stages to show. Raises ConfigError for a stage that does not exist."""
    if stage is None:
        return found
    if stage not in found:
        raise ConfigError(
            f"{run!r} has no stage {stage!r} with training steps",
            f"stages with training steps: {', '.join(found) or 'none'}",
        )
    return {stage: found[stage]}


def _stage_of(name: str) -> str:
    """The stage of a refresh: `1-enhanced` for `1-enhanced-refresh-2`."""
    return name.partition("-refresh-")[0]


def _by_number(name: str) -> list[int | str]:
    """A sort key that puts refresh 2 before refresh 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _row(step: TrainingStep, parts: list[str]) -> dict[str, Any]:
    """A row of the table; `-` for figures that the step does not have."""
    figures = step.figures
    speed = figures["tokens"] / figures["seconds"] if figures.get("seconds") else None
    tokens = {"tokens/s": None if speed is None else f"{speed:.0f}"}
    if step.role == ALL_ROLES:
        loss, rate = _cell(figures, "loss", ".3f"), _cell(figures, "learning_rate", ".2g")
        return {"step": step.step, "loss": loss, "learning rate": rate, **tokens}
    return {
        "step": step.step,
        "reward": _cell(figures, "mean_reward", ".3f"),
        **{part: _cell(step.reward_parts, part, ".3f") for part in parts},
        **{title: _cell(figures, name, digits) for name, (title, digits) in COLUMNS.items()},
        "no signal": "/".join(
            str(_cell(figures, name, ".0f")) for name in ("groups_without_signal", "groups")
        ),
        **tokens,
    }


def _cell(figures: dict[str, float], name: str, digits: str) -> str | None:
    return format(figures[name], digits) if name in figures else None
