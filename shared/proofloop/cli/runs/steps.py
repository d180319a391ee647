"""`proofloop runs steps`: what each step of a training saw and did, as the trainer wrote it
down.
"""

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
from proofloop.schema.records import TrainingStep
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
"""The trainer's figures that a table shows as they are: under which name, and how many digits."""


def steps(
    run: Annotated[str, typer.Argument(help="The run's or the curriculum's name.")],
    stage: Annotated[
        str | None,
        typer.Argument(
            help="A role of a run, a stage of a curriculum as 1-verifier; all without it."
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """What each training step saw: reward and its parts, KL, entropy, ratio, shares, length; all
    figures with --json.

    clipped: share of tokens whose gradient was clipped away. off policy: of answers that the mask
    dropped. length: tokens an answer. cut off: share of answers. no signal: groups in which all
    earned the same. tokens/s: trained on, without the time for sampling. docs/training.md says
    more.
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
            f"{stage!r} of {run!r} takes no training steps",
            f"those that do: {', '.join(names) or 'none'}",
        )
    return [stage]


def _trained(store: Store, run: str) -> list[str]:
    """The roles of a run, the stages of a curriculum that take steps of GRPO."""
    curriculum = find_curriculum(store, run)
    if curriculum is None:
        return list(need_run(store, run).training.roles)
    return [stage.name for stage in curriculum.stages if stage.kind in SAMPLED]


def _stage_of(name: str) -> str:
    """An enhanced stage trains its meta-verifier too, in `1-enhanced-refresh-2`."""
    return name.partition("-refresh-")[0]


def _by_number(name: str) -> list[int | str]:
    """Refresh 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _row(step: TrainingStep, parts: list[str]) -> dict[str, Any]:
    """A line of the table; `-` for what a step's writer did not know yet."""
    figures = step.figures
    return {
        "step": step.step,
        "reward": _cell(figures, "mean_reward", ".3f"),
        **{part: _cell(step.reward_parts, part, ".3f") for part in parts},
        **{title: _cell(figures, name, digits) for name, (title, digits) in COLUMNS.items()},
        "no signal": "/".join(
            str(_cell(figures, name, ".0f")) for name in ("groups_without_signal", "groups")
        ),
        "tokens/s": f"{figures['tokens'] / figures['seconds']:.0f}"
        if figures.get("seconds")
        else None,
    }


def _cell(figures: dict[str, float], name: str, digits: str) -> str | None:
    return format(figures[name], digits) if name in figures else None
