"""`proofloop train`: what the trainer made, for trainers that are not ours."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import StoreOption, need_run, open_store
from proofloop.config.curriculum_file import CurriculumSpec, grpo_fields
from proofloop.curriculum.status import find_curriculum
from proofloop.errors import ConfigError, install_hint
from proofloop.schema import keys
from proofloop.schema.records import TRAINED_ROLES
from proofloop.store import Store

app = typer.Typer(help="Training batches for other trainers.", no_args_is_help=True)


@app.callback()
def several() -> None:
    """Training batches for other trainers."""


@app.command("export-slime")
def export_slime(
    run: Annotated[str, typer.Argument(help="The name of a run or a curriculum.")],
    stage: Annotated[
        str,
        typer.Argument(help="A curriculum's stage (1-verifier); of a run: generator or verifier."),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    store: StoreOption = None,
) -> None:
    """Write a stage's batches as slime's samples, one JSONL file a step, and the objective as
    slime's arguments.

    arguments.txt holds what clipping, KL, off-policy mask and routing replay are to be for the same
    objective, notes.txt which settings slime has no argument for (epochs); model, cluster and
    parallelism are yours to add. Nothing here was run by slime itself.
    """
    data = open_store(store, must_exist=True)
    curriculum = find_curriculum(data, run)
    stages = _stages(data, run, curriculum)
    if stage not in stages:
        raise ConfigError(
            f"{run} has no stage {stage!r} with batches", f"it has: {', '.join(stages) or 'none'}"
        )
    if out.exists():
        raise ConfigError(f"{out} is there already", "give the name of a new folder")
    for point in entry_points(group="proofloop.commands", name="export-slime"):
        count = point.load()(data, run, stage, _settings(data, run, stage, curriculum), out)
        print(f"{count} batches of {run} {stage} in {out}")
        return
    raise ConfigError("an export needs the trainer", install_hint("trainer"))


def _stages(store: Store, run: str, curriculum: CurriculumSpec | None) -> list[str]:
    """What has batches."""
    if curriculum is None:
        need_run(store, run)
    prefix = keys.all_batches(run)
    return list(dict.fromkeys(keys.first_below(prefix, key) for key in store.list(prefix)))


def _settings(
    store: Store, run: str, stage: str, curriculum: CurriculumSpec | None
) -> dict[str, object]:
    """The GRPO settings that the stage was trained by."""
    if curriculum is None:
        (role,) = (role for role in TRAINED_ROLES if role == stage)
        spec = need_run(store, run)
        return {
            "temperature": spec.sampling_of(role).temperature,
            **spec.training.of(role).settings,
        }
    # What refreshes the meta-verifier during an enhanced stage is trained as the meta-verifier.
    if "-refresh-" in stage:
        return grpo_fields(curriculum, "meta_verifier", curriculum.enhanced.refresh_steps)
    return grpo_fields(
        curriculum, next(each.kind for each in curriculum.stages if each.name == stage)
    )
