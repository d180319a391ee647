"""`proofloop train`: exports training batches for other trainers."""

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
from proofloop.schema.records import MODEL_ROLES
from proofloop.store import Store

app = typer.Typer(help="Export training batches for other trainers.", no_args_is_help=True)


@app.callback()
def several() -> None:
    """Export training batches for other trainers."""


@app.command("export-slime")
def export_slime(
    run: Annotated[str, typer.Argument(help="The name of a run or a curriculum.")],
    stage: Annotated[
        str,
        typer.Argument(
            help="A stage of a curriculum, such as 1-verifier; for a run: a role in training."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to create.")],
    store: StoreOption = None,
) -> None:
    """Write training batches as slime samples.

    Each step of the stage becomes one JSONL file. arguments.txt has slime's arguments for the same
    objective: clipping, KL, off-policy mask, routing replay. notes.txt names the settings without a
    slime argument (epochs). Add model, cluster and parallelism yourself. The export has not been
    tested with slime.
    """
    data = open_store(store, must_exist=True)
    curriculum = find_curriculum(data, run)
    stages = _stages(data, run, curriculum)
    if stage not in stages:
        raise ConfigError(
            f"{run} has no stage {stage!r} with batches",
            f"stages with batches: {', '.join(stages) or 'none yet'}",
        )
    if out.exists():
        raise ConfigError(f"{out} already exists", "give a folder that does not exist")
    for point in entry_points(group="proofloop.commands", name="export-slime"):
        count = point.load()(data, run, stage, _settings(data, run, stage, curriculum), out)
        print(f"{count} batches of {run} {stage} in {out}")
        return
    raise ConfigError("the trainer is not installed", install_hint("trainer"))


def _stages(store: Store, run: str, curriculum: CurriculumSpec | None) -> list[str]:
    """The stages or roles that have batches."""
    if curriculum is None:
        need_run(store, run)
    prefix = keys.all_batches(run)
    return list(dict.fromkeys(keys.first_below(prefix, key) for key in store.list(prefix)))


def _settings(
    store: Store, run: str, stage: str, curriculum: CurriculumSpec | None
) -> dict[str, object]:
    """The GRPO settings of the stage."""
    if curriculum is None:
        (role,) = (role for role in MODEL_ROLES if role == stage)
        spec = need_run(store, run)
        return {
            "temperature": spec.sampling_of(role).temperature,
            **spec.training.of(role).settings,
        }
    # A refresh during an enhanced stage trains the meta-verifier, with that stage's settings.
    if "-refresh-" in stage:
        return grpo_fields(curriculum, "meta_verifier", curriculum.enhanced.refresh_steps)
    return grpo_fields(
        curriculum, next(each.kind for each in curriculum.stages if each.name == stage)
    )
