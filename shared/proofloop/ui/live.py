"""A run as it is now: progress, calls in flight, tokens a second, money, queues, time left.

All of it comes from the store and the broker, because the run works in other processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proofloop.bus import open_dead_letters
from proofloop.config.run_file import Prices, RunSpec
from proofloop.config.settings import Settings
from proofloop.errors import ConfigError, ProofloopError
from proofloop.runs.budget import TimeTaken
from proofloop.runs.costs import Spent, money_of
from proofloop.runs.index.tables import Totals, totals
from proofloop.runs.planned import posed_proofs
from proofloop.runs.progress import Rate
from proofloop.schema import keys
from proofloop.store import Store
from proofloop.store.renewed import newest
from proofloop.ui.fresh_index import Filled, FreshIndex
from proofloop.worker.calls.usage import added_up, written

if TYPE_CHECKING:
    from proofloop.bus.dead_letters import Depth

STATUS_S = 1.5
"""How long a status is reused: all readers of a run share one look at the store."""

PLANNED_S = 20.0
"""How long the number of planned proofs is reused: a search reads all its rounds for it."""

QUEUES_S = 5.0
"""How long the broker's queues are reused."""

LABELS_S = 300.0
"""The window over which labels a second are measured."""


@dataclass(frozen=True)
class LiveStatus:
    """A run at one moment.

    `planned`: None if the problem file is elsewhere. `calls`: those in flight by role, as far as
    the run's processes wrote them. `tokens`: of all calls. `money`: None without prices, or if no
    process wrote its calls. `queues`: those of the broker, for all runs together.
    """

    totals: Totals
    filled: Filled
    planned: int | None
    calls: Mapping[str, int]
    tokens: float
    tokens_per_second: float
    money: float | None
    seconds_left: float | None
    queues: tuple[Depth, ...]
    queues_problem: str

    @property
    def is_active(self) -> bool:
        """Whether model calls are in flight."""
        return bool(self.calls)

    @property
    def is_complete(self) -> bool:
        return self.planned is not None and self.totals.proofs >= self.planned > 0


@dataclass
class _Watched:
    """The previous state of a run."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    status: LiveStatus | None = None
    read_s: float = float("-inf")
    planned: int | None = None
    planned_s: float = float("-inf")
    tokens: Rate = field(default_factory=Rate)
    labels: Rate = field(default_factory=lambda: Rate(LABELS_S))


class LiveRuns:
    """The runs that people look at. Safe to share between threads."""

    def __init__(
        self, store: Store, index: FreshIndex, settings: Settings, *, status_s: float = STATUS_S
    ) -> None:
        self._store, self._index = store, index
        self._status_s = status_s
        self._queues = _Queues(settings)
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}

    def status(self, spec: RunSpec) -> LiveStatus:
        """The run now. Raises StoreError."""
        watched = self._of(spec.name)
        with watched.lock:
            if watched.status is None or time.monotonic() - watched.read_s > self._status_s:
                watched.status = self._read(spec, watched)
                watched.read_s = time.monotonic()
            return watched.status

    def planned(self, spec: RunSpec) -> int | None:
        """The proofs that the run asks for by now; None if its problem file is elsewhere."""
        watched = self._of(spec.name)
        if time.monotonic() - watched.planned_s > PLANNED_S:
            watched.planned = self._read_planned(spec)
            watched.planned_s = time.monotonic()
        return watched.planned

    def _of(self, run: str) -> _Watched:
        with self._lock:
            return self._watched.setdefault(run, _Watched())

    def _read_planned(self, spec: RunSpec) -> int | None:
        try:
            return posed_proofs(self._store, spec)
        except ConfigError:
            return None

    def _read(self, spec: RunSpec, watched: _Watched) -> LiveStatus:
        filled = self._index.look(spec.name)
        found = totals(self._index.index, spec.name)
        spent, calls = added_up(written(self._store, spec.name))
        used = sum(spent.values(), start=Spent())
        tokens = used.prompt_tokens + used.completion_tokens
        planned = self.planned(spec)
        left = max(0, planned - found.proofs) if planned is not None and calls else 0
        queues, problem = self._queues.read()
        return LiveStatus(
            totals=found,
            filled=filled,
            planned=planned,
            calls=dict(sorted(calls.items())),
            tokens=tokens,
            tokens_per_second=watched.tokens.per_second(int(tokens)) if calls else 0.0,
            money=money_of(spec.prices, spent) if spec.prices != Prices() and spent else None,
            seconds_left=self._seconds_left(spec.name, watched, found.proofs, left),
            queues=queues,
            queues_problem=problem,
        )

    def _seconds_left(self, run: str, watched: _Watched, done: int, left: int) -> float | None:
        """From the labels that came while the page was open, else from the run's whole time."""
        rate = watched.labels.per_second(done)
        if not left:
            return None
        if not rate:
            worked = sum(
                each.seconds for _, each in newest(self._store, keys.times(run), TimeTaken)
            )
            rate = done / worked if worked else 0.0
        return left / rate if rate else None


class _Queues:
    """The queues of the broker, if there is one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._found: tuple[tuple[Depth, ...], str] = (), ""

    def read(self) -> tuple[tuple[Depth, ...], str]:
        """The queues, and why they cannot be read."""
        if self._settings.broker is None:
            return (), ""
        with self._lock:
            if time.monotonic() - self._read_s > QUEUES_S:
                self._found = self._ask()
                self._read_s = time.monotonic()
            return self._found

    def _ask(self) -> tuple[tuple[Depth, ...], str]:
        try:
            return tuple(open_dead_letters(self._settings).depths()), ""
        except ProofloopError as error:
            return (), str(error)
