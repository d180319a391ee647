"""What several commands share: the store option, clean stopping, progress with true counts, output
as table or JSON.
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
from proofloop.runs.progress import Progress
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.store import Store
from proofloop.worker.engine_pool import Engines

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="The store's folder; default: S3 at PROOFLOOP_S3_ENDPOINT if set, else PROOFLOOP_STORE"
        " or proofloop-data.",
    ),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65535,
        help="Answer /metrics, /healthz and /readyz there; default: PROOFLOOP_METRICS_PORT, else"
        " nowhere.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

ENOUGH_PROOFS, ENOUGH_CALLS = 10, 20
"""From so many on there is a time left: by the proofs done, and before that by the calls that there
can be at most.
"""

RATE_S = 30.0
"""Over how long tokens a second are counted."""

PLAIN_INTERVAL_S = 15.0
"""How often progress is printed where there is no terminal to draw on."""


def open_store(folder: Path | None, *, must_exist: bool = False) -> Store:
    """The store that the command works on. Raises ConfigError if it cannot be written, StoreError
    if it is away.

    A command that only looks makes no folder: for it the store must exist.
    """
    settings = load_settings()
    local = folder if folder is not None or settings.s3_endpoint else settings.store
    if must_exist and local is not None and not local.exists():
        raise ConfigError(
            f"there is no store at {local.absolute()}", "name one by --store or PROOFLOOP_STORE"
        )
    return store.open_store(settings, folder)


def open_engines(store: Store) -> Engines:
    return Engines(store, load_settings().cache)


def need_run(store: Store, run_id: str) -> RunSpec:
    """The spec of a run that must be there. Raises ConfigError; of a curriculum it names the
    command that shows it.
    """
    spec = find_spec(store, run_id)
    if spec is not None:
        return spec
    if run_id in (curricula := names(store, keys.CURRICULA)):
        raise ConfigError(
            f"{run_id!r} is a curriculum, not a run", f"`proofloop runs show {run_id}` shows it"
        )
    known = [*names(store, keys.SPECS), *(f"{name} (a curriculum)" for name in curricula)]
    raise ConfigError(
        f"there is no run {run_id!r} in {store}",
        f"there are: {', '.join(known) or 'none'}; see --store",
    )


def names(store: Store, prefix: str) -> list[str]:
    """The names of the runs (keys.SPECS) or the curricula (keys.CURRICULA) in the store."""
    return [keys.name_of(key) for key in store.list(prefix)]


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the process, but for `stopping_on_signal`: a container's first process would not
    hear it.
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
            "stopping: running calls are cancelled, what is stored stays (again: at once)",
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
    """One line a stage: what is done of how much, how it came out, calls in flight, tokens, money,
    the time left.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._stage, self._began, self._tokens = "", 0.0, Rate()
        self._last: dict[str, int] | None = None
        self._due = 0.0

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, stage: str, progress: Progress) -> None:
        """Draw the line, or print it now and then where there is no terminal."""
        if stage != self._stage:
            self._stage, self._began, self._tokens = stage, time.monotonic(), Rate()
            self._last, self._due = None, 0.0
        line = f"{stage}: {self._describe(progress)}"
        if self._console.is_terminal:
            self._live.update(Text(line))
            return
        now, last = (
            time.monotonic(),
            dict(progress.steps) if progress.labeled >= progress.planned else None,
        )
        if last != self._last or (
            last is None and now >= self._due
        ):  # the trainer may go on after the last label
            self._last, self._due = last, now + PLAIN_INTERVAL_S
            print(line, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, progress: Progress) -> str:
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
        parts = [f"{progress.labeled}/{progress.planned} proofs done ({outcomes or 'none yet'})"]
        if progress.searches:
            parts.append(f"{progress.searches_ended}/{progress.searches} searches ended")
        parts += [f"{role} step {step}" for role, step in sorted(progress.steps.items())]
        is_done = self._is_done(progress)
        if progress.calls and not is_done:
            parts.append(
                "calls in flight:"
                f" {', '.join(f'{role} {n}' for role, n in sorted(progress.calls.items()))}"
            )
        if (rate := self._tokens.per_second(progress.tokens)) and not is_done:
            parts.append(f"{rate:,.0f} tokens/s")
        if progress.money is not None:
            parts.append(f"cost so far {progress.money:,.2f}")
        return "; ".join([*parts, self._time_left(progress)])

    def _is_done(self, progress: Progress) -> bool:
        """Calls are counted now and then: what the last count says may be over."""
        return progress.labeled >= progress.planned and progress.searches_ended >= progress.searches

    def _time_left(self, progress: Progress) -> str:
        elapsed, done = time.monotonic() - self._began, progress.labeled - progress.stored
        if self._is_done(progress):
            return f"took {elapsed:.0f} s"
        expected, most = (
            max(progress.planned, progress.expected),
            max(progress.planned, progress.most),
        )
        if done >= ENOUGH_PROOFS and elapsed >= 2:
            left = f"about {span(elapsed / done * (expected - progress.labeled))} left"
            limit = span(elapsed / done * (most - progress.labeled))
            return f"{left}, at most {limit}" if most > expected else left
        calls = (most - progress.stored) * progress.most_calls
        if progress.answered >= ENOUGH_CALLS and elapsed >= 2 and calls > progress.answered:
            return f"at most {span(elapsed / progress.answered * (calls - progress.answered))} left"
        return "time left: not known yet"


class Rate:
    """How many tokens came a second, over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def per_second(self, tokens: int) -> float:
        """Note how many there are by now."""
        now = time.monotonic()
        if not self._seen or now - self._seen[-1][0] >= 1 or tokens < self._seen[-1][1]:
            self._seen.append((now, tokens))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_S:
            self._seen.popleft()
        at, before = self._seen[0]
        return max(0, tokens - before) / (now - at) if now - at >= 1 else 0.0


def span(seconds: float) -> str:
    """A time in the unit that a person would use."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"


WIDE = 1000
"""Columns of a console that folds no table."""


def emit(
    rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "", is_wide: bool = False
) -> None:
    """Rows on stdout: a JSON list, or a table; one of many numbers `is_wide`: without frames, and
    never folded.

    No table is folded where stdout is no terminal: who reads it there looks for whole words in
    whole lines.
    """
    if as_json:
        print(json.dumps(list(rows), indent=2))
        return
    if not rows:
        print(f"nothing{f': no {title}' if title else ''}", file=sys.stderr)
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
    Console(markup=False, width=WIDE if is_wide or not sys.stdout.isatty() else None).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return str(value)
