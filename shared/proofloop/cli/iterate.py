"""`proofloop iterate`: runs the stages of a curriculum in order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api.files import read_curriculum
from proofloop.cli.common import (
    LocalOption,
    StoreOption,
    open_engines,
    open_store,
    stopping_on_signal,
)
from proofloop.config.section import LARGEST_SEED
from proofloop.curriculum.controller import iterate as do_stages


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
        typer.Option(
            "--seed",
            min=0,
            max=LARGEST_SEED,
            help="Random seed instead of the file's; becomes part of the name.",
        ),
    ] = None,
    local: LocalOption = False,
) -> None:
    """Train models by a curriculum.

    After a cold start, each iteration trains verifier, meta-verifier and generator, labels new
    proofs, and consolidates all roles into one model. Each stage is a run, or several, named
    CURRICULUM-STAGE; `proofloop runs` shows them too.

    With PROOFLOOP_BROKER set, the services behind the broker do the work (`proofloop serve`);
    without it, all services run in this process.

    To resume a stopped or killed curriculum, run the command again: the next step is identical.
    `proofloop runs show NAME` shows its progress, `proofloop runs steps NAME` its training steps.
    """
    spec = read_curriculum(file)
    if seed is not None:
        spec = spec.model_copy(update={"seed": seed, "name": f"{spec.name}-{seed}"})
    data = open_store(store)
    with open_engines(data) as engines, stopping_on_signal() as stopping:
        done = do_stages(spec, data, engines, stopping, _print_progress, local=local)
    for name, manifest in done.items():
        print(f"{name:28} {manifest.seconds:6.0f} s  {manifest.version or ''}")


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
