"""Drives one run from its first problem to its last label: in this process, or on services."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import structlog

from proofloop.bus import open_bus, open_dead_letters
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.engine import find_engine
from proofloop.errors import AccessRefused, ConfigError, EngineError
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.pipeline.services import ServicesPipeline
from proofloop.runs.create import create_run
from proofloop.runs.planned import planned_proofs, roles_of
from proofloop.runs.progress import RunProgress
from proofloop.schema.given import GivenPortion
from proofloop.schema.records import PIPELINE_ROLES, ModelRole
from proofloop.store import Store
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import load_role

log = structlog.get_logger()

OnProgress = Callable[[RunProgress], None]

CHECK_PATIENCE_S = 20.0
"""The timeout for checking an engine from this process, if workers call it. This process need not
reach it.
"""


def drive_here(
    store: Store,
    spec: RunSpec,
    stopping: threading.Event,
    on_progress: OnProgress,
    *,
    resume: bool,
    portions: Sequence[GivenPortion] = (),
) -> RunProgress:
    """Run all services in this process. `portions`: the given cases of a run of material.

    Raises ConfigError; Interrupted when `stopping` is set; BudgetUsedUp.
    """
    with closing(Engines(store, load_settings().cache)) as engines:
        planned_proofs(spec)  # a bad problem file must be named before any engine is asked
        engines.check(spec, roles=_asked(spec, portions), stopping=stopping)
        for role in roles_of(spec):  # a missing role must be named before the run is stored
            load_role(role).check(spec)
        spec = create_run(store, spec, resume=resume, portions=portions)
        with EmbeddedPipeline(store, engines, spec, stopping=stopping) as pipeline:
            return pipeline.run(on_progress)


def _asked(spec: RunSpec, portions: Sequence[GivenPortion]) -> tuple[ModelRole, ...]:
    """The roles whose models are called: not the generator's where every case has a proof."""
    cases = [case for portion in portions for case in portion.cases]
    has_proofs = bool(cases) and all(case.solution is not None for case in cases)
    return tuple(role for role in spec.asked_roles if not (has_proofs and role == "generator"))


def drive_on_services(
    store: Store,
    spec: RunSpec,
    stopping: threading.Event,
    on_progress: OnProgress,
    *,
    resume: bool,
    portions: Sequence[GivenPortion] = (),
) -> RunProgress:
    """Run on the workers of the broker; this process poses problems and reports progress.

    Raises as `drive_here` does, and BusError if the broker is unavailable.
    """
    settings = load_settings()
    planned_proofs(spec)  # a bad problem file must be named before any engine is asked
    needed = {*PIPELINE_ROLES, *roles_of(spec)}
    letters, bus = open_dead_letters(settings), open_bus(settings, roles=needed)
    try:
        check_from_here(Engines(store, settings.cache), spec, stopping)
        spec = create_run(store, spec, resume=resume, portions=portions)
        with ServicesPipeline(store, bus, letters, spec, stopping=stopping) as pipeline:
            return pipeline.run(on_progress)
    finally:
        bus.close(grace_s=settings.grace_s)


def check_from_here(engines: Engines, spec: RunSpec, stopping: threading.Event) -> None:
    """Check the engines before the run starts, as far as this process can reach them.

    Raises ConfigError for an error in the run file, Interrupted once `stopping` is set. If only the
    workers can reach an engine, a warning is logged.
    """
    roles = [role for role in spec.asked_roles if _is_on_server(spec.engine.of(role).kind)]
    if not roles:
        return
    try:
        engines.check(spec, patience_s=CHECK_PATIENCE_S, roles=roles, stopping=stopping)
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
