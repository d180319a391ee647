"""Shared parts of the commands: common options, clean stopping, the progress line, tables and
JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proofloop import store
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.runs.progress import RunProgress
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.records import ALL_ROLES
from proofloop.store import Store
from proofloop.worker.engine_pool import Engines

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Folder of the store; default: S3 at PROOFLOOP_S3_ENDPOINT if set, else"
        " PROOFLOOP_STORE or proofloop-data.",
    ),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65535,
        help="Port for /metrics, /healthz and /readyz; default: PROOFLOOP_METRICS_PORT, else none.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

ENOUGH_PROOFS = 10
"""The fewest finished proofs from which the time left is estimated."""

ENOUGH_CALLS = 20
"""The fewest answered calls from which an upper limit of the time left is estimated."""

RATE_S = 30.0
"""The window over which the rate of tokens is measured."""

PLAIN_INTERVAL_S = 15.0
"""The time between two progress lines if stderr is not a terminal."""


def open_store(folder: Path | None, *, must_exist: bool = False) -> Store:
    """The store of the command. Raises ConfigError if it cannot be written, StoreError if it is
    unavailable.

    With `must_exist` a missing folder is an error: commands that only read create no folder.
    """
    settings = load_settings()
    local = settings.store if folder is None and store.is_folder(settings) else folder
    if must_exist and local is not None and not local.exists():
        raise ConfigError(
            f"no store at {local.absolute()}", "give its folder by --store or PROOFLOOP_STORE"
        )
    return store.open_store(settings, folder)


def open_engines(store: Store) -> Engines:
    return Engines(store, load_settings().cache)


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
        print(
            "stopping: running calls are cancelled, stored results are kept (Ctrl-C again: stop at"
            " once)",
            file=sys.stderr,
        )
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProgressLine:
    """One line for each stage: proofs done and planned, outcomes, calls in flight, tokens a second,
    cost, time left.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._stage = ""
        self._began = 0.0
        self._tokens = Rate()
        self._final_steps: dict[str, int] | None = None
        self._due = 0.0

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, stage: str, progress: RunProgress) -> None:
        """Redraw the line; without a terminal, print it every PLAIN_INTERVAL_S."""
        if stage != self._stage:
            self._stage = stage
            self._began = time.monotonic()
            self._tokens = Rate()
            self._final_steps = None
            self._due = 0.0
        line = f"{stage}: {self._describe(progress)}"
        if self._console.is_terminal:
            self._live.update(Text(line))
        elif self._is_due(progress):
            print(line, file=sys.stderr, flush=True)

    def _is_due(self, progress: RunProgress) -> bool:
        """Whether to print a line now. After the last label, only a new training step is news."""
        is_labeled = progress.labeled >= progress.planned
        final_steps = dict(progress.steps) if is_labeled else None
        now = time.monotonic()
        if final_steps == self._final_steps and (is_labeled or now < self._due):
            return False
        self._final_steps = final_steps
        self._due = now + PLAIN_INTERVAL_S
        return True

    def print(self, text: str) -> None:
        """Print a line above the progress line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, progress: RunProgress) -> str:
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
        proofs = f"{progress.labeled}/{progress.planned} proofs done ({outcomes or 'none yet'})"
        parts = [proofs] if progress.planned else []
        if progress.searches:
            parts.append(f"{progress.searches_ended}/{progress.searches} searches ended")
        parts += [
            f"{'supervised' if role == ALL_ROLES else role} step {step}"
            for role, step in sorted(progress.steps.items())
        ]
        is_done = self._is_done(progress)
        if progress.calls and not is_done:
            calls = ", ".join(f"{role} {count}" for role, count in sorted(progress.calls.items()))
            parts.append(f"calls in flight: {calls}")
        if (rate := self._tokens.per_second(progress.tokens)) and not is_done:
            parts.append(f"{rate:,.0f} tokens/s")
        if progress.money is not None:
            parts.append(f"cost so far {progress.money:,.2f}")
        return "; ".join([*parts, self._time_left(progress)])

    def _is_done(self, progress: RunProgress) -> bool:
        """Whether all proofs are labeled and all searches have ended.

        Calls are counted only now and then, so the last count may be out of date.
        """
        return progress.labeled >= progress.planned and progress.searches_ended >= progress.searches

    def _time_left(self, progress: RunProgress) -> str:
        elapsed = time.monotonic() - self._began
        done = progress.labeled - progress.stored
        if self._is_done(progress):
            return f"took {elapsed:.0f} s"
        expected = max(progress.planned, progress.expected)
        most = max(progress.planned, progress.most)
        if done >= ENOUGH_PROOFS and elapsed >= 2:
            left = f"about {span(elapsed / done * (expected - progress.labeled))} left"
            limit = span(elapsed / done * (most - progress.labeled))
            return f"{left}, at most {limit}" if most > expected else left
        calls = (most - progress.stored) * progress.most_calls
        if progress.answered >= ENOUGH_CALLS and elapsed >= 2 and calls > progress.answered:
            return f"at most {span(elapsed / progress.answered * (calls - progress.answered))} left"
        return "time left: not known yet"


class Rate:
    """The rate of tokens over the last RATE_S seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def per_second(self, tokens: int) -> float:
        """Tokens a second; `tokens` is the total so far."""
        now = time.monotonic()
        samples = self._samples
        if not samples or now - samples[-1][0] >= 1 or tokens < samples[-1][1]:
            samples.append((now, tokens))
        while len(samples) > 2 and now - samples[0][0] > RATE_S:
            samples.popleft()
        began, before = samples[0]
        return max(0, tokens - before) / (now - began) if now - began >= 1 else 0.0


def span(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"


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
    return str(value)
