"""`proofloop run`: a run file's problems through the whole walk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import ProgressLine, StoreOption, open_engines, open_store, stopping_on_signal
from proofloop.runspec import load_runspec
from proofloop.walk import LocalWalk, create_run, planned_proofs


def run(
    file: Annotated[Path, typer.Argument(help="The run.toml: problems, engine, models, n/m/k, training. See examples/.")],
    store: StoreOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed; nothing stored is paid again.")] = False,
    local: Annotated[bool, typer.Option("--local", help="All five services in this process (the default while no broker is set).")] = True,
) -> None:
    """Run the problems of a run file: prove, criticise, check the criticism, label, and train if the file says so.

    The run's name is that of the file unless it gives one. Look at it afterwards with `proofloop runs show NAME` and `proofloop runs report NAME`.
    """
    spec = load_runspec(file)
    total = planned_proofs(spec)
    data = open_store(store)
    engines = open_engines(data)
    try:
        engines.check(spec)
        spec = create_run(data, spec, resume=resume)
        with stopping_on_signal() as stopping, ProgressLine() as line, LocalWalk(data, engines, spec, stopping=stopping) as walk:
            progress = walk.run(total, lambda progress: line.show(spec.name, progress))
    finally:
        engines.close()
    print(f"{spec.name}: {progress.labeled} proofs labelled: " + ", ".join(f"{n} {c}" for n, c in sorted(progress.outcomes.items())))
