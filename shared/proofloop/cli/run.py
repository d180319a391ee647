"""`proofloop run`: runs the whole pipeline on the problems of a run file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api import Run
from proofloop.cli.common import LocalOption, StoreOption, stopping_on_signal
from proofloop.cli.progress import ProgressLine
from proofloop.runs.answers import Readability, readability
from proofloop.runs.flow import UNFILLED_HINT, unfilled
from proofloop.runs.model_registry import published_versions
from proofloop.runs.progress import RunProgress
from proofloop.runs.spec import find_spec
from proofloop.schema.records import ALL_ROLES
from proofloop.worker.calls.early_warning import NewWarnings

NOTHING_READ = 3
"""The exit code of a finished run without a readable proof, or without a readable critique."""

REASONS_PRINTED = 3

ANSWERS_SCANNED = 5_000
"""The most answers scanned for unreadable ones at the end of a run, because reading from S3 is
slow.
"""


def run(
    file: Annotated[
        Path,
        typer.Argument(
            help="The run.toml: problems, engine, models, labeling, training; `proofloop init`"
            " writes one."
        ),
    ],
    store: StoreOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a stopped or killed run. Stored answers are kept and not paid again.",
        ),
    ] = False,
    local: LocalOption = False,
) -> None:
    """Run the problems of a run file.

    The pipeline proves, criticizes, checks the criticism and labels; it trains if the file has
    [training].

    With PROOFLOOP_BROKER set, the services behind the broker do the work (`proofloop serve`);
    without it, all services run in this process. The run's name is the file's `name`, else its file
    name. See the results with `proofloop runs show NAME` and `proofloop runs report NAME`.

    Exit code 3: the run is done, but no answer of the generator, or none of the verifier, was
    readable.
    """
    started = Run.create(file, store=store, resume=resume, local=local)
    spec, data = started.spec, started.store
    if resume and find_spec(data, spec.name) is None:
        print(
            f"warning: no run named {spec.name!r} in {data}: it starts from the beginning"
            " (hint: is --store right?)",
            file=sys.stderr,
        )
    for change in started.changes:
        print(f"{spec.name}: changed: {change}", file=sys.stderr)
    for problem in unfilled(spec) if started.is_here else ():
        print(f"warning: {spec.name}: {problem} (hint: {UNFILLED_HINT})", file=sys.stderr)
    warnings = NewWarnings(data, spec.name)
    with stopping_on_signal() as stopping, ProgressLine() as line:

        def report(progress: RunProgress) -> None:
            line.show(spec.name, progress)
            for warning in warnings.look():
                line.print(warning.line(spec.name))

        line.wait(f"{spec.name}: checking the models")
        progress = started.finish(report, stopping=stopping)
        for warning in warnings.look(every_s=0.0):
            line.print(warning.line(spec.name))
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    steps = "".join(
        f"; {role} step {progress.steps.get(role, 0)} of {spec.training.of(role).steps}"
        for role in spec.training.roles
    )
    if spec.fine_tuning:
        print(f"{spec.name}: made {published_versions(data, spec.name, ALL_ROLES)[-1]}")
        return
    print(f"{spec.name}: {progress.labeled} proofs done: {outcomes}{steps}")
    found = readability(data, spec.name, limit=ANSWERS_SCANNED)
    print_unread(spec.name, found)
    if not {"generator", "verifier"}.isdisjoint(found.roles_without_any):
        raise typer.Exit(NOTHING_READ)


def print_unread(run: str, found: Readability) -> None:
    """Print the commonest reasons for unreadable answers."""
    scope = "" if found.is_whole else f" of the first {sum(found.seen.values())} answers"
    for unread in found.unread[:REASONS_PRINTED]:
        print(f"unreadable{scope}: {unread.words}", file=sys.stderr)
    if found.unread:
        print(
            f"`proofloop proof {run} {found.unread[0].example}` prints an example; `proofloop runs"
            f" show {run}` lists all reasons",
            file=sys.stderr,
        )
    for role in found.roles_without_any:
        print(
            f"error: none of the {found.seen[role]} answers of the {role} was readable",
            file=sys.stderr,
        )
