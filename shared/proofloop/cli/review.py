"""`proofloop review`: the page on which people grade."""

from __future__ import annotations

from importlib.metadata import entry_points
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
from proofloop.errors import ConfigError, install_hint
from proofloop.worker.health import Endpoint, Health
from proofloop.worker.metrics import Metrics


@ending_on_sigterm()
def review(
    run: Annotated[
        str | None,
        typer.Argument(help="The run whose proofs are graded; default: all in the store."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="The address to answer on; any but this machine's own needs a password."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0 takes one that is free.")
    ] = 8321,
    spot_checks: Annotated[
        int,
        typer.Option(
            "--spot-checks",
            min=0,
            help="Labels of each run to check as well: how often do people agree?",
        ),
    ] = 0,
    store: StoreOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Show the proofs that the labeler left undecided on a web page, with their critiques, and take
    people's grades.

    Open the address that it prints. A grade (0, 0.5 or 1) becomes the proof's label: reports, costs
    and measurements show it at once, and training uses it unless it used up the problem before.
    With PROOFLOOP_BROKER set the label is announced to the services. PROOFLOOP_REVIEW_TOKEN is the
    password that the page asks for; without one it answers on this machine only.
    """
    settings = load_settings()
    data = open_store(store, must_exist=True)
    if run is not None:
        need_run(data, run)
    found = list(entry_points(group="proofloop.commands", name="review"))
    if not found:
        raise ConfigError("the page comes with the labeler", install_hint("labeler"))
    serve, health = found[0].load(), Health()
    token = settings.review_token.get_secret_value() if settings.review_token else None
    if metrics := settings.metrics_port if metrics_port is None else metrics_port:
        Endpoint(settings.metrics_host, metrics, Metrics().registry, health)
    bus = LocalBus() if settings.broker is None else open_bus(settings, connect_s=START_S)
    try:
        with stopping_on_signal() as stopping:
            health.watch(bus, data, stopping)
            serve(
                data,
                bus,
                run=run,
                spot_checks=spot_checks,
                host=host,
                port=port,
                token=token,
                stopping=stopping,
                grace_s=settings.grace_s,
            )
    finally:
        bus.close(grace_s=settings.grace_s)
