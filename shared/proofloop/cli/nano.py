"""`proofloop nano`: trains the base model of the nano domain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proofloop.plugins import load_command

app = typer.Typer(help="The nano model: train.", no_args_is_help=True)


@app.callback()
def nano() -> None:
    """Keeps `train` a subcommand: Typer would make the only command of a group the group itself."""


@app.command("train")
def train(
    out: Annotated[Path, typer.Option("--out", help="Folder for the new model.")] = Path(
        "nano-base"
    ),
    seed: Annotated[int, typer.Option("--seed")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 11000,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="CPU cores to use if there is no GPU.")
    ] = 1,
) -> None:
    """Train a new base model.

    Like the shipped model, it learns from scratch by practice and imperfect demonstrations. It
    takes minutes on a GPU, and at most an hour on two CPU cores.
    """
    load_command("nano-train", "trainer")(out, seed, steps, threads)
