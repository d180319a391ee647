"""`proofloop iterate`: runs the stages of a curriculum in order."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api.files import read_curriculum
from proofloop.cli.common import StoreOption, open_engines, open_store, stopping_on_signal
from proofloop.errors import ConfigError, install_hint


def iterate(
    file: Annotated[
        Path,
        typer.Argument(
            help="The curriculum file; docs/reference/curriculum-file.md lists its keys, and"
            " examples/nano-iterate is an example."
        ),
    ],
    store: StoreOption = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Random seed instead of the file's; becomes part of the name."),
    ] = None,
) -> None:
    """Train models by a curriculum.

    After a cold start, each iteration trains verifier, meta-verifier and generator, labels new
    proofs, and consolidates all roles into one model.

    To resume a stopped or killed curriculum, run the command again: the next step is identical.
    `proofloop runs show NAME` shows its progress, `proofloop runs steps NAME` its training steps.
    """
    spec = read_curriculum(file)
    if seed is not None:
        spec = spec.model_copy(update={"seed": seed, "name": f"{spec.name}-{seed}"})
    data = open_store(store)
    found = list(entry_points(group="proofloop.commands", name="iterate"))
    if not found:
        raise ConfigError("the trainer is not installed", install_hint("trainer"))
    engines = open_engines(data)
    try:
        with stopping_on_signal() as stopping:
            done = found[0].load()(spec, data, engines, stopping, _print_progress)
    finally:
        engines.close()
    for name, manifest in done.items():
        print(f"{name:28} {manifest.seconds:6.0f} s  {manifest.version or ''}")


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
