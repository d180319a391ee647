"""`proofloop train`: exports training batches for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import StoreOption, need_run, open_store
from proofloop.config.run_file import RunSpec
from proofloop.curriculum.status import find_curriculum, training_steps
from proofloop.errors import ConfigError
from proofloop.plugins import load_command
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES, ModelRole
from proofloop.store import Store

app = typer.Typer(help="Export training batches for other trainers.", no_args_is_help=True)


@app.callback()
def several() -> None:
    """Export training batches for other trainers."""


@app.command("export-slime")
def export_slime(
    run: Annotated[
        str,
        typer.Argument(
            help="The run's name; a stage of a curriculum is a run such as NAME-1-verifier."
        ),
    ],
    role: Annotated[
        str, typer.Argument(help="The trained role: generator, verifier or meta_verifier.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to create.")],
    store: StoreOption = None,
) -> None:
    """Write training batches as slime samples.

    Each step becomes one JSONL file. arguments.txt has slime's arguments for the same
    objective: clipping, KL, off-policy mask, routing replay. notes.txt names the settings without a
    slime argument (epochs). Add model, cluster and parallelism yourself. The export has not been
    tested with slime.
    """
    data = open_store(store, must_exist=True)
    roles = _roles(data, run)
    if role not in roles:
        raise ConfigError(
            f"run {run!r} has no batches of {role!r}",
            f"roles with batches: {', '.join(roles) or 'none yet'}",
        )
    if out.exists():
        raise ConfigError(f"{out} already exists", "give a folder that does not exist")
    export = load_command("export-slime", "trainer")
    count = export(data, run, role, _settings(need_run(data, run), roles[role]), out)
    print(f"{count} batches of {run} {role} in {out}")


def _roles(store: Store, run: str) -> dict[str, ModelRole]:
    """The roles that have batches, by name."""
    if curriculum := find_curriculum(store, run):
        taken = [f"{run}-{name}" for name in training_steps(store, curriculum)]
        raise ConfigError(
            f"{run!r} is a curriculum: the runs of its stages have the batches",
            f"name one of them: {', '.join(taken) or 'none has taken a step yet'}",
        )
    need_run(store, run)
    return {role: role for role in MODEL_ROLES if any(store.list(keys.batches(run, role)))}


def _settings(spec: RunSpec, role: ModelRole) -> dict[str, object]:
    """The GRPO settings of the role."""
    temperature = spec.sampling_of(role).temperature
    return {"temperature": temperature, **spec.training.of(role).settings}
