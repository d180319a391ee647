"""`proofloop ui`: serves the pages on which people read, watch and grade runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proofloop.bus import START_S, Bus, LocalBus, open_bus
from proofloop.cli.common import (
    MetricsPortOption,
    StoreOption,
    ending_on_sigterm,
    need_run,
    open_store,
    stopping_on_signal,
)
from proofloop.config.settings import Settings, load_settings
from proofloop.errors import ConfigError, install_hint, needs
from proofloop.plugins import has_command, load_command
from proofloop.store import Store
from proofloop.worker.health import Health, MonitoringServer
from proofloop.worker.metrics import WorkerMetrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@ending_on_sigterm()
def ui(
    run: Annotated[
        str | None, typer.Argument(help="Show only this run; default: all in the store.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="The address to listen on; '' is all, IPv6 included. One that others can reach"
            " requires a password.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port; 0: any free port.")
    ] = 8321,
    spot_checks: Annotated[
        int,
        typer.Option(
            "--spot-checks",
            min=0,
            help="Labeled proofs of each run to grade too, to measure how often people agree.",
        ),
    ] = 0,
    analyses: Annotated[
        int,
        typer.Option(
            "--analyses",
            min=0,
            help="Analyses of each run to grade too: the data that meta-verifiers learn from.",
        ),
    ] = 0,
    overlap: Annotated[
        int, typer.Option("--overlap", min=1, help="How many people grade each proof or analysis.")
    ] = 1,
    store: StoreOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Serve web pages to read, watch and grade runs.

    The pages show all runs and curricula in the store: their progress, a table of problems, each
    proof with its critiques beside the lines, and comparisons. Open the printed address.

    Where the labeler is installed, people can grade undecided proofs under /grade. A grade (0, 0.5
    or 1) becomes the proof's label. Reports, costs and measurements show it at once; training uses
    it, unless it has already trained on the problem. With PROOFLOOP_BROKER set, the services
    receive the label, and the pages show the broker's queues.

    PROOFLOOP_REVIEW_PASSWORDS has the names and passwords of the people, PROOFLOOP_REVIEW_TOKEN one
    password for all; without either the pages are reachable from this machine only.
    """
    with needs("[report]"):
        from proofloop.ui.access import Access, check_address
        from proofloop.ui.server import serve
    settings = load_settings()
    data = open_store(store, must_exist=True)
    if run is not None:
        need_run(data, run)
    if (spot_checks or analyses or overlap > 1) and not has_command("grade"):
        raise ConfigError(
            "the labeler, which has the grading pages, is not installed", install_hint("labeler")
        )
    access = Access.of(settings)
    check_address(host, access)
    health = Health()
    if metrics := settings.metrics_port if metrics_port is None else metrics_port:
        MonitoringServer(settings.metrics_host, metrics, WorkerMetrics().registry, health)
    with _bus(settings) as bus, stopping_on_signal() as stopping:
        health.watch(bus, data, stopping)
        with _grading_pages(
            data,
            bus,
            run=run,
            spot_checks=spot_checks,
            analyses=analyses,
            overlap=overlap,
            people=access.passwords,
            grace_s=settings.grace_s,
        ) as grading:
            serve(
                data,
                settings,
                access,
                grading,
                run=run,
                host=host,
                port=port,
                stopping=stopping,
            )


@contextmanager
def _bus(settings: Settings) -> Iterator[Bus]:
    """The bus on which grades are announced."""
    bus = LocalBus() if settings.broker is None else open_bus(settings, connect_s=START_S)
    try:
        yield bus
    finally:
        bus.close(grace_s=settings.grace_s)


@contextmanager
def _grading_pages(store: Store, bus: Bus, **options: Any) -> Iterator[ASGIApp | None]:
    """The labeler's pages, or None if it is not installed."""
    if not has_command("grade"):
        yield None
        return
    with load_command("grade", "labeler")(store, bus, **options) as pages:
        yield pages
