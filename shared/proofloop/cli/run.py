"""`proofloop run`: a run file's problems through the whole walk."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
import typer

from proofloop.bus import NEEDED_BY_ALL, open_bus, open_dead_letters
from proofloop.cli.common import (
    ProgressLine,
    StoreOption,
    open_engines,
    open_store,
    stopping_on_signal,
)
from proofloop.cli.files import read_run
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.engine import find_engine
from proofloop.errors import AccessRefused, ConfigError, EngineError
from proofloop.pipeline.embedded import LocalWalk, create_run, planned_proofs
from proofloop.pipeline.services import RemoteWalk
from proofloop.runs.answers import Readability, readability
from proofloop.runs.progress import Progress
from proofloop.runs.spec import check_run
from proofloop.schema.records import MODEL_ROLES
from proofloop.store import Store
from proofloop.worker.early_warning import NewWarnings
from proofloop.worker.engine_pool import Engines
from proofloop.worker.runtime import load_role

log = structlog.get_logger()

Report = Callable[[Progress], None]

NOTHING_READ = 3
"""The exit code of a run that is done, but none of whose proofs, or critiques, could be read."""

REASONS_SAID = 3

SCANNED_AT_THE_END = 5_000
"""Answers that are looked through for the commonest reasons: the end of a run should not take long,
on S3 too.
"""

FROM_HERE_S = 20.0
"""How long an engine that the workers ask may take to answer this process, which need not reach
it.
"""


def run(
    file: Annotated[
        Path,
        typer.Argument(
            help="The run.toml: problems, engine, models, n/m/k, training. See examples/."
        ),
    ],
    store: StoreOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was stopped or killed; nothing stored is paid again.",
        ),
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="All five services in this process, though PROOFLOOP_BROKER is set."
        ),
    ] = False,
) -> None:
    """Run the problems of a run file: prove, criticise, check the criticism, label, and train if
    the file says so.

    With PROOFLOOP_BROKER set the services behind that broker do the work (`proofloop serve`), else
    all five run in this process. The run's name is that of the file unless it gives one. Look at it
    afterwards with `proofloop runs show NAME` and `proofloop runs report NAME`.

    Exit code 3: the run is done, but not one answer of the generator, or of the verifier, could be
    read.
    """
    spec = read_run(file)
    settings = load_settings()
    data = open_store(store)
    for change in check_run(data, spec, resume=resume):
        print(f"{spec.name}: changed: {change}", file=sys.stderr)
    warnings = NewWarnings(data, spec.name)
    with stopping_on_signal() as stopping, ProgressLine() as line:

        def report(progress: Progress) -> None:
            line.show(spec.name, progress)
            for warning in warnings.look():
                line.say(warning.line(spec.name))

        go = _here if local or settings.broker is None else _on_services
        progress = go(data, spec, resume, stopping, report)
        for warning in warnings.look(every_s=0.0):
            line.say(warning.line(spec.name))
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    steps = "".join(
        f"; {role} step {progress.steps.get(role, 0)} of {spec.training.of(role).steps}"
        for role in spec.training.roles
    )
    print(f"{spec.name}: {progress.labeled} proofs done: {outcomes}{steps}")
    found = readability(data, spec.name, limit=SCANNED_AT_THE_END)
    say_unread(spec.name, found)
    if not {"generator", "verifier"}.isdisjoint(found.roles_without_any):
        raise typer.Exit(NOTHING_READ)


def say_unread(run: str, found: Readability) -> None:
    """Print the commonest reasons why answers were not read."""
    of = "" if found.is_whole else f" of the first {sum(found.seen.values())} answers"
    for unread in found.unread[:REASONS_SAID]:
        print(f"unread{of}: {unread.words}", file=sys.stderr)
    if found.unread:
        print(
            f"`proofloop proof {run} {found.unread[0].example}` prints one; all: `runs show {run}`",
            file=sys.stderr,
        )
    for role in found.roles_without_any:
        print(
            f"error: no answer of the {role} could be read, of {found.seen[role]}", file=sys.stderr
        )


def _here(
    store: Store, spec: RunSpec, resume: bool, stopping: threading.Event, report: Report
) -> Progress:
    """All five services in this process."""
    engines = open_engines(store)
    try:
        total = planned_proofs(spec)
        engines.check(spec)
        if spec.training.roles:
            load_role("trainer").check(spec)
        spec = create_run(store, spec, resume=resume)
        with LocalWalk(store, engines, spec, stopping=stopping) as walk:
            return walk.run(total, report)
    finally:
        engines.close()


def _on_services(
    store: Store, spec: RunSpec, resume: bool, stopping: threading.Event, report: Report
) -> Progress:
    """Whatever workers serve the broker; this process only poses and watches."""
    settings, total = load_settings(), planned_proofs(spec)
    roles = [*NEEDED_BY_ALL, *(["trainer"] if spec.training.roles else [])]
    letters, bus = open_dead_letters(settings), open_bus(settings, roles=roles)
    try:
        check_from_here(open_engines(store), spec)
        spec = create_run(store, spec, resume=resume)
        return RemoteWalk(store, bus, letters, spec, stopping=stopping).run(total, report)
    finally:
        bus.close(grace_s=settings.grace_s)


def check_from_here(engines: Engines, spec: RunSpec) -> None:
    """Ask the models before anything is posed, where this process can: it may be that only the
    workers reach them.

    Raises ConfigError for a run that no worker could do either.
    """
    roles = [role for role in MODEL_ROLES if _is_on_server(spec.engine.of(role).kind)]
    if not roles:
        return
    try:
        engines.check(spec, patience_s=FROM_HERE_S, roles=roles)
    except (
        ConfigError,
        OSError,
    ) as error:  # OSError: a certificate or template that only the workers have
        if _is_about_the_run(error):
            raise
        log.warning("engine_not_checked", reason=str(error).partition("\n")[0])
    finally:
        engines.close()


def _is_on_server(kind: str) -> bool:
    info = find_engine(kind)
    return info is not None and info.on_server


def _is_about_the_run(error: Exception) -> bool:
    """Not that the engine is away from here, that this process has no key for it, or lacks a file
    or a package.
    """
    cause = error.__cause__
    if isinstance(cause, EngineError):
        return not cause.retryable and not isinstance(cause, AccessRefused)
    return isinstance(error, ConfigError) and cause is None
