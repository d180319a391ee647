"""Shared parts of the commands: common options, clean stopping, tables and JSON."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table

from proofloop import store
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.store import Store
from proofloop.typeset.printable import printable
from proofloop.worker.engine_pool import Engines

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Folder of the store; default: S3 at PROOFLOOP_S3_ENDPOINT if set, else"
        " PROOFLOOP_STORE or proofloop-data.",
    ),
]
RunArgument = Annotated[str, typer.Argument(help="The run's name.")]
EitherArgument = Annotated[str, typer.Argument(help="The name of a run or a curriculum.")]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65535,
        help="Port for /metrics, /healthz and /readyz; default: PROOFLOOP_METRICS_PORT, else none.",
    ),
]
LocalOption = Annotated[
    bool,
    typer.Option(
        "--local", help="Run all services in this process, even with PROOFLOOP_BROKER set."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def open_store(folder: Path | None, *, must_exist: bool = False) -> Store:
    """The store of the command. Raises ConfigError if it cannot be written, StoreError if it is
    unavailable.

    With `must_exist` a missing folder is an error, and a read-only one is none: commands that only
    read create no folder.
    """
    settings = load_settings()
    local = settings.store if folder is None and store.is_folder(settings) else folder
    if must_exist and local is not None and not local.exists():
        raise ConfigError(
            f"no store at {local.absolute()}", "give its folder by --store or PROOFLOOP_STORE"
        )
    return store.open_store(settings, folder, for_reading=must_exist)


def open_engines(store: Store) -> closing[Engines]:
    return closing(Engines(store, load_settings().cache))


def need_run(store: Store, run_id: str) -> RunSpec:
    """The spec of this run. Raises ConfigError if the store has no run of this name."""
    spec = find_spec(store, run_id)
    if spec is not None:
        return spec
    if run_id in (curricula := names(store, keys.CURRICULA)):
        raise ConfigError(
            f"{run_id!r} is a curriculum, not a run",
            f"`proofloop runs show {run_id}` shows a curriculum",
        )
    known = [*names(store, keys.SPECS), *(f"{name} (a curriculum)" for name in curricula)]
    hint = f"the store has: {', '.join(known)}" if known else "the store is empty: check --store"
    raise ConfigError(f"no run named {run_id!r} in {store}", hint)


def names(store: Store, prefix: str) -> list[str]:
    """The names of the runs (keys.SPECS) or the curricula (keys.CURRICULA) in the store."""
    return [keys.name_of(key) for key in store.list(prefix)]


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the process. Without a handler, the first process of a container ignores it.

    `stopping_on_signal` replaces this handler while it is active.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stopping_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends the process at once."""
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        if stopping.is_set():
            sys.exit(130)
        print("stopping: stored results are kept (Ctrl-C again: stop at once)", file=sys.stderr)
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


UNFOLDED_COLUMNS = 1000
"""A console width at which no table is folded."""


def emit(
    rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "", is_wide: bool = False
) -> None:
    """Print rows on stdout as a JSON list or as a table.

    `is_wide`: a table of many numbers, without a frame and never folded. Without a terminal no
    table is folded, so that scripts find whole words in whole lines.
    """
    if as_json:
        print(json.dumps(list(rows), indent=2))
        return
    if not rows:
        print(f"no {title}" if title else "none", file=sys.stderr)
        return
    frame = None if is_wide else HEAVY_HEAD
    table = Table(
        title=title or None,
        title_justify="left",
        box=frame,
        pad_edge=not is_wide,
        collapse_padding=is_wide,
    )
    for position, name in enumerate(rows[0]):
        side: Literal["left", "right"] = "right" if is_wide else "left"
        table.add_column(
            name.replace("_", " "), overflow="fold", no_wrap=position == 0, justify=side
        )
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    width = UNFOLDED_COLUMNS if is_wide or not sys.stdout.isatty() else None
    Console(markup=False, width=width).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return printable(str(value))
