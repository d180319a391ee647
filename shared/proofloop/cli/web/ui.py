"""`proofloop ui`: serves the pages on which people read runs and watch them."""

from __future__ import annotations

from typing import Annotated

import typer

from proofloop.cli.common import StoreOption, ending_on_sigterm, open_store, stopping_on_signal
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError, install_hint


@ending_on_sigterm()
def ui(
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
    store: StoreOption = None,
) -> None:
    """Serve web pages of all runs and curricula in the store.

    Progress while a run works, a table of its problems, the proofs with their critiques beside the
    lines, comparisons, curricula. Open the printed address. PROOFLOOP_REVIEW_TOKEN is the pages'
    password; without a password they are reachable from this machine only. With PROOFLOOP_BROKER
    set, the pages show the broker's queues.
    """
    try:
        from proofloop.ui.server import serve
    except ImportError as error:
        raise ConfigError("the web server is not installed", install_hint("[report]")) from error
    settings = load_settings()
    data = open_store(store, must_exist=True)
    with stopping_on_signal() as stopping:
        serve(data, settings, host=host, port=port, stopping=stopping)
