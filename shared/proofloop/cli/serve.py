"""`proofloop serve`: one role as a service of its own."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from importlib.metadata import version
from typing import Annotated

import typer

from proofloop.bus import NEEDED_BY_ALL, check_broker, open_bus
from proofloop.calls import leased_calls
from proofloop.cli.common import (
    MetricsPortOption,
    StoreOption,
    ending_on_sigterm,
    open_engines,
    open_store,
    stopping_on_signal,
)
from proofloop.endpoint import Endpoint, Health
from proofloop.errors import ConfigError, ProofloopError
from proofloop.metrics import Metrics
from proofloop.runspec import Flow
from proofloop.runtime import Role, Tools, Worker, load_role
from proofloop.settings import load_settings
from proofloop.tracing import tracing

CONNECT_S = 120.0
"""How long a service that starts waits for its broker: they often start together."""


@ending_on_sigterm()
def serve(
    role: Annotated[str, typer.Argument(help="generator, verifier, meta_verifier, labeler or trainer.")],
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Messages at once; default: as in one process. The trainer takes 1."),
    ] = None,
    store: StoreOption = None,
    metrics_port: MetricsPortOption = None,
    check: Annotated[bool, typer.Option("--check", help="Load the role, print what it handles, and end.")] = False,
) -> None:
    """Run one role as a service: it takes its events from the broker (PROOFLOOP_BROKER) and writes to the store.

    Prints one JSON line when it is ready. SIGTERM or Ctrl-C: nothing new is begun, running engine calls have
    PROOFLOOP_DRAIN_S to finish, then they are cancelled and their messages go back to the queue; exit code 0. With
    --metrics-port it tells Prometheus what it does, and whoever asks whether it lives and can work.
    """
    loaded = load_role(role)
    if check:
        print(json.dumps({"role": loaded.name, "handles": sorted(loaded.handlers), "proofloop": version("proofloop")}))
        return
    settings = load_settings()
    threads = _concurrency(loaded, concurrency)
    metrics, health = Metrics(), Health()
    port = settings.metrics_port if metrics_port is None else metrics_port
    if port:
        Endpoint(settings.metrics_host, port, metrics.registry, health)
    bus = open_bus(settings, roles=[*NEEDED_BY_ALL, loaded.name], connect_s=CONNECT_S)
    cancelling, drain_s = threading.Event(), 0.0
    with tracing(f"proofloop-{loaded.name}") as span, ExitStack() as until_drained:
        try:
            check_broker(settings, loaded.name)
            data = open_store(store)
            engines = open_engines(data)
            calls = until_drained.enter_context(leased_calls(data, bus.losses))
            with stopping_on_signal() as stopping:
                tools = Tools(
                    data,
                    engines.of,
                    metrics=metrics,
                    span=span,
                    stopping=stopping,
                    cancelling=cancelling,
                    calls=calls,
                )
                Worker(loaded, bus, tools).start(concurrency=threads)
                health.watch(bus, data, stopping)
                print(json.dumps(_ready(loaded, threads, str(data))), flush=True)
                stopping.wait()
                drain_s = 0.0 if tools.stop_reason else settings.drain_s
        finally:
            end_of_patience = threading.Timer(drain_s, cancelling.set)
            end_of_patience.start()
            bus.close(grace_s=drain_s + settings.grace_s)
            end_of_patience.cancel()
    engines.close()
    if tools.stop_reason:
        raise ProofloopError(tools.stop_reason)


def _concurrency(role: Role, wanted: int | None) -> int:
    """The trainer's steps follow one another, whatever is asked for elsewhere."""
    if role.name == "trainer" and wanted not in (None, 1):
        raise ConfigError(f"--concurrency {wanted}: the trainer handles one message at a time", "leave it out")
    return wanted or int(getattr(Flow(), role.name, 1))


def _ready(role: Role, concurrency: int, store: str) -> dict[str, object]:
    return {"ready": role.name, "concurrency": concurrency, "store": store, "pid": os.getpid()}
