"""`proofloop runs steps`: shows the figures that the trainer recorded for each training step."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_store
from proofloop.config.curriculum_file import SAMPLED
from proofloop.curriculum.status import find_curriculum
from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.schema.records import ALL_ROLES, TrainingStep
from proofloop.store import Store, get_record

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
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the training steps of a run or curriculum.

    The table has the main figures, --json all of them. clipped: share of tokens with a clipped
    gradient. off policy: share of answers dropped by the mask. length: mean tokens of an answer.
    cut off: share of answers that reached max_tokens. no signal: groups with equal rewards, of all
    groups. tokens/s: trained tokens a second, without sampling. docs/how-to/train.md explains all
    figures.
    """
    data = open_store(store, must_exist=True)
    chosen = _choose(data, run, stage)
    found = {
        name: [get_record(data, key, TrainingStep) for key in data.list(keys.steps(run, name))]
        for name in chosen
    }
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


def _choose(store: Store, run: str, stage: str | None) -> list[str]:
    """The stages to show, in their order. Raises ConfigError for a run or a stage that does not
    exist.
    """
    known = _trained(store, run)
    steps = keys.all_steps(run)
    taken = {keys.first_below(steps, key) for key in store.list(steps)}
    places = {name: place for place, name in enumerate(known)}
    names = sorted(
        {*known, *taken},
        key=lambda name: (places.get(_stage_of(name), len(known)), _by_number(name)),
    )
    if stage is None:
        return names
    if stage not in names:
        raise ConfigError(
            f"{run!r} has no stage {stage!r} with training steps",
            f"stages with training steps: {', '.join(names) or 'none'}",
        )
    return [stage]


def _trained(store: Store, run: str) -> list[str]:
    """The trained roles of a run, or the GRPO stages of a curriculum."""
    curriculum = find_curriculum(store, run)
    if curriculum is None:
        return list(need_run(store, run).training.roles)
    return [stage.name for stage in curriculum.stages if stage.kind in SAMPLED]


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
