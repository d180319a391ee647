"""`proofloop serve`: runs one role as a service."""

from __future__ import annotations

import json
import os
import socket
from functools import partial
from typing import Annotated

import structlog
import typer

from proofloop import __version__
from proofloop.bus import broker_url
from proofloop.cli.common import MetricsPortOption, StoreOption, ending_on_sigterm
from proofloop.config.settings import load_settings
from proofloop.errors import ProofloopError
from proofloop.worker.roles import load_role


@ending_on_sigterm()
def serve(
    role: Annotated[
        str, typer.Argument(help="generator, verifier, meta_verifier, labeler or trainer.")
    ],
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            min=1,
            help="Messages handled at the same time; default: the role's default in [flow]. The"
            " trainer handles 1.",
        ),
    ] = None,
    store: StoreOption = None,
    metrics_port: MetricsPortOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Load the role, print its events, and exit.")
    ] = False,
) -> None:
    """Run one role as a service.

    The service is a Celery worker that consumes the role's queue on the broker (PROOFLOOP_BROKER).
    It prints one JSON line when it is ready. On SIGTERM or Ctrl-C it takes no new messages, and
    running model calls have PROOFLOOP_DRAIN_S to finish; then they are cancelled, their messages
    return to the queue, and the exit code is 0. --metrics-port serves Prometheus metrics and health
    checks.
    """
    loaded = load_role(role)
    if check:
        print(
            json.dumps(
                {
                    "role": loaded.name,
                    "handles": sorted(loaded.handlers),
                    "proofloop": __version__,
                }
            )
        )
        return
    broker_url(load_settings())
    from proofloop.worker.service import app, checked_concurrency, open_service

    app.open_service = partial(open_service, store=store, metrics_port=metrics_port)
    try:
        worker = app.Worker(
            queues=[f"{app.conf.task_default_exchange}.{loaded.name}"],
            concurrency=checked_concurrency(loaded, concurrency),
            hostname=f"{loaded.name}.{os.getpid()}@{socket.gethostname()}",
            # the level of -v, or of the settings
            loglevel=structlog.get_logger().bind().get_effective_level(),
            quiet=True,
        )
    except SystemExit as refusal:
        raise refusal.__cause__ or refusal from None
    worker.start()
    if app.service.stop_reason:
        raise ProofloopError(app.service.stop_reason)
