"""`proofloop run`: runs the whole pipeline on the problems of a run file."""

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
from proofloop.runs.flow import UNFILLED_HINT, unfilled
from proofloop.runs.progress import RunProgress
from proofloop.runs.spec import check_run
from proofloop.schema.records import MODEL_ROLES
from proofloop.store import Store
from proofloop.worker.calls.early_warning import NewWarnings
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import load_role

log = structlog.get_logger()

Report = Callable[[RunProgress], None]

NOTHING_READ = 3
"""The exit code of a finished run without a readable proof, or without a readable critique."""

REASONS_PRINTED = 3

ANSWERS_SCANNED = 5_000
"""The most answers scanned for unreadable ones at the end of a run, because reading from S3 is
slow.
"""

CHECK_PATIENCE_S = 20.0
"""The timeout for checking an engine from this process, if workers call it. This process need not
reach it.
"""


def run(
    file: Annotated[
        Path,
        typer.Argument(
            help="The run.toml: problems, engine, models, labeling, training. See examples/."
        ),
    ],
    store: StoreOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a stopped or killed run. No stored answer is asked for again.",
        ),
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Run all services in this process, even with PROOFLOOP_BROKER set."
        ),
    ] = False,
) -> None:
    """Run the problems of a run file: prove, criticise, check the criticism, label, and train if
    the file has [training].

    With PROOFLOOP_BROKER set, the services behind the broker do the work (`proofloop serve`);
    without it, all services run in this process. The run's name is the file's `name`, else its file
    name. See the results with `proofloop runs show NAME` and `proofloop runs report NAME`.

    Exit code 3: the run is done, but no answer of the generator, or none of the verifier, was
    readable.
    """
    spec = read_run(file)
    settings = load_settings()
    data = open_store(store)
    for change in check_run(data, spec, resume=resume):
        print(f"{spec.name}: changed: {change}", file=sys.stderr)
    warnings = NewWarnings(data, spec.name)
    with stopping_on_signal() as stopping, ProgressLine() as line:

        def report(progress: RunProgress) -> None:
            line.show(spec.name, progress)
            for warning in warnings.look():
                line.print(warning.line(spec.name))

        drive = _run_here if local or settings.broker is None else _run_on_services
        progress = drive(data, spec, resume, stopping, report)
        for warning in warnings.look(every_s=0.0):
            line.print(warning.line(spec.name))
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    steps = "".join(
        f"; {role} step {progress.steps.get(role, 0)} of {spec.training.of(role).steps}"
        for role in spec.training.roles
    )
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


def _run_here(
    store: Store, spec: RunSpec, resume: bool, stopping: threading.Event, report: Report
) -> RunProgress:
    """Run all services in this process."""
    engines = open_engines(store)
    try:
        total = planned_proofs(spec)
        engines.check(spec)
        if spec.training.roles:
            load_role("trainer").check(spec)
        for problem in unfilled(spec):
            print(f"{spec.name}: {problem}\nhint: {UNFILLED_HINT}", file=sys.stderr)
        spec = create_run(store, spec, resume=resume)
        with LocalWalk(store, engines, spec, stopping=stopping) as walk:
            return walk.run(total, report)
    finally:
        engines.close()


def _run_on_services(
    store: Store, spec: RunSpec, resume: bool, stopping: threading.Event, report: Report
) -> RunProgress:
    """Run on the workers of the broker; this process only poses problems and reports progress."""
    settings = load_settings()
    total = planned_proofs(spec)
    roles = [*NEEDED_BY_ALL, *(["trainer"] if spec.training.roles else [])]
    letters, bus = open_dead_letters(settings), open_bus(settings, roles=roles)
    try:
        check_from_here(open_engines(store), spec)
        spec = create_run(store, spec, resume=resume)
        return RemoteWalk(store, bus, letters, spec, stopping=stopping).run(total, report)
    finally:
        bus.close(grace_s=settings.grace_s)


def check_from_here(engines: Engines, spec: RunSpec) -> None:
    """Check the engines before the run starts, as far as this process can reach them.

    Raises ConfigError for an error in the run file. If only the workers can reach an engine, a
    warning is logged.
    """
    roles = [role for role in MODEL_ROLES if _is_on_server(spec.engine.of(role).kind)]
    if not roles:
        return
    try:
        engines.check(spec, patience_s=CHECK_PATIENCE_S, roles=roles)
    # OSError: a certificate or a template that only the workers have
    except (ConfigError, OSError) as error:
        if _is_about_the_run(error):
            raise
        log.warning("engine_not_checked", reason=str(error).partition("\n")[0])
    finally:
        engines.close()


def _is_on_server(kind: str) -> bool:
    info = find_engine(kind)
    return info is not None and info.on_server


def _is_about_the_run(error: Exception) -> bool:
    """Whether the run file is wrong, not this process's access to the engine: no network route, no
    key, no file or package.
    """
    cause = error.__cause__
    if isinstance(cause, EngineError):
        return not cause.retryable and not isinstance(cause, AccessRefused)
    return isinstance(error, ConfigError) and cause is None
