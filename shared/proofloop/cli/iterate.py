"""`proofloop iterate`: a curriculum's stages, one after the other."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import StoreOption, open_engines, open_store, stopping_on_signal
from proofloop.cli.files import read_curriculum
from proofloop.errors import ConfigError, install_hint


def iterate(
    file: Annotated[
        Path,
        typer.Argument(
            help="The curriculum's TOML file: docs/curriculum-keys.md lists its keys. See"
            " examples/nano-iterate."
        ),
    ],
    store: StoreOption = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Another seed than the file's; becomes part of the name."),
    ] = None,
) -> None:
    """Train by the method's curriculum: cold start, verifier, meta-verifier, generator, labels,
    consolidation, again.

    Stop or kill it and call it again: it goes on with the identical next step. `proofloop runs show
    NAME` tells where it stands, `proofloop runs steps NAME` what its training steps saw.
    """
    spec = read_curriculum(file)
    if seed is not None:
        spec = spec.model_copy(update={"seed": seed, "name": f"{spec.name}-{seed}"})
    data = open_store(store)
    found = list(entry_points(group="proofloop.commands", name="iterate"))
    if not found:
        raise ConfigError("a curriculum needs the trainer", install_hint("trainer"))
    engines = open_engines(data)
    try:
        with stopping_on_signal() as stopping:
            done = found[0].load()(spec, data, engines, stopping, _say)
    finally:
        engines.close()
    for name, manifest in done.items():
        print(f"{name:28} {manifest.seconds:6.0f} s  {manifest.version or ''}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
