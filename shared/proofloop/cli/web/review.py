"""`proofloop review`: serves the web page on which people grade proofs and analyses."""

from __future__ import annotations

from typing import Annotated

import typer

from proofloop.bus import START_S, LocalBus, open_bus
from proofloop.cli.common import (
    MetricsPortOption,
    StoreOption,
    ending_on_sigterm,
    need_run,
    open_store,
    stopping_on_signal,
)
from proofloop.config.settings import load_settings
from proofloop.plugins import load_command
from proofloop.worker.health import Health, MonitoringServer
from proofloop.worker.metrics import WorkerMetrics


@ending_on_sigterm()
def review(
    run: Annotated[
        str | None,
        typer.Argument(help="The run whose proofs to grade; default: all runs in the store."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="The address to listen on; one that others can reach requires a password.",
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
    """Serve the web page on which people grade proofs.

    The page shows the proofs that the labeler left undecided. Open the printed address. A grade (0,
    0.5 or 1) becomes the proof's label. Reports, costs and measurements show it at once; training
    uses it, unless it has already trained on the problem. With PROOFLOOP_BROKER set, the services
    receive the label. PROOFLOOP_REVIEW_PASSWORDS has the names and passwords of the people,
    PROOFLOOP_REVIEW_TOKEN one password for all; without either the page is reachable from this
    machine only.
    """
    settings = load_settings()
    data = open_store(store, must_exist=True)
    if run is not None:
        need_run(data, run)
    serve = load_command("review", "labeler")
    health = Health()
    if metrics := settings.metrics_port if metrics_port is None else metrics_port:
        MonitoringServer(settings.metrics_host, metrics, WorkerMetrics().registry, health)
    bus = LocalBus() if settings.broker is None else open_bus(settings, connect_s=START_S)
    try:
        with stopping_on_signal() as stopping:
            health.watch(bus, data, stopping)
            serve(
                data,
                bus,
                run=run,
                spot_checks=spot_checks,
                analyses=analyses,
                overlap=overlap,
                host=host,
                port=port,
                settings=settings,
                stopping=stopping,
            )
    finally:
        bus.close(grace_s=settings.grace_s)
