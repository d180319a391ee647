"""The cost of a run's calls by role, and the calls in flight, before their proofs have labels.

In one process the run reads the counters. Each process also writes its counters to the store: the
run adds up those of all services, and the web pages show them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from proofloop.config.run_file import Budget, Prices, RunSpec
from proofloop.errors import ProofloopError
from proofloop.runs.costs import ByRole, Spent, costs, summed
from proofloop.schema import keys
from proofloop.schema.ids import parse_call_id
from proofloop.schema.records import ModelRole, Record
from proofloop.store import Store
from proofloop.store.renewed import Renewed, newest
from proofloop.worker.calls.running_calls import RunningCalls

log = structlog.get_logger()

WRITE_S = 5.0
"""How often a service writes what it counted, if that changed."""

RENEW_S, FRESH_S = 15.0, 60.0
"""While calls are in flight it is written at least this often; an older one is of a process that
died.
"""

KEPT = 2
"""A process keeps this many of its counts in the store: another may be about to read the last but
one.
"""


class RoleUsage(Record):
    """The cost of one role's calls, and its calls in flight."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    engine_seconds: float = 0.0
    in_flight: int = 0


class UsageRecord(Record):
    """The counters of one process for a run, until `at_s` in seconds of Unix time."""

    at_s: float
    roles: dict[ModelRole, RoleUsage]


class UsageCounter:
    """The counters of this process. Safe to share between threads."""

    def __init__(self, calls: RunningCalls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._spent: dict[str, dict[ModelRole, Spent]] = defaultdict(dict)

    def add(self, run_id: str, role: ModelRole, spent: Spent) -> None:
        with self._lock:
            of_run = self._spent[run_id]
            of_run[role] = of_run.get(role, Spent()) + spent

    def forget(self, run_id: str) -> None:
        """Forget what a run spent that was deleted."""
        with self._lock:
            self._spent.pop(run_id, None)

    def spent(self, run_id: str) -> dict[ModelRole, Spent]:
        with self._lock:
            return dict(self._spent.get(run_id, {}))

    def in_flight(self, run_id: str) -> dict[str, int]:
        """The calls in flight by role, including those that wait for a place in the engine."""
        return self._all_in_flight().get(run_id, {})

    def records(self) -> dict[str, dict[ModelRole, RoleUsage]]:
        """The records to write, by run."""
        flying = self._all_in_flight()
        with self._lock:
            runs = {*self._spent, *flying}
        return {run: self._record(self.spent(run), flying.get(run, {})) for run in runs}

    def _record(self, spent: ByRole, flying: Mapping[str, int]) -> dict[ModelRole, RoleUsage]:
        roles: dict[ModelRole, RoleUsage] = {}
        for role in {*spent, *flying}:
            of = spent.get(role, Spent())  # type: ignore[call-overload]  # a role that asks is a model's
            roles[role] = RoleUsage(  # type: ignore[index]
                calls=int(of.calls),
                prompt_tokens=int(of.prompt_tokens),
                completion_tokens=int(of.completion_tokens),
                engine_seconds=of.engine_seconds,
                in_flight=flying.get(role, 0),
            )
        return roles

    def _all_in_flight(self) -> dict[str, Counter[str]]:
        """The calls in flight by run and role: a call's key begins with both."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for key in self._calls.begun():
            call = parse_call_id(key)
            found[call.run_id][call.role] += 1
        return found


class UsageWriter:
    """Writes the counters of this process to the store, numbered for each run."""

    def __init__(self, store: Store, usage: UsageCounter) -> None:
        self._store, self._usage = store, usage
        self._own: dict[str, Renewed] = {}
        self._written: dict[str, tuple[float, dict[ModelRole, RoleUsage]]] = {}

    def write(self) -> None:
        """Write changed counters at once, and those of runs with calls in flight now and then."""
        now = time.monotonic()
        for run, roles in self._usage.records().items():
            at, before = self._written.get(run, (0.0, {}))
            is_old = now - at > RENEW_S and any(role.in_flight for role in roles.values())
            if roles != before or is_old:
                if run not in self._own:
                    self._own[run] = Renewed(self._store, keys.usages(run), "usage", kept=KEPT)
                self._own[run].write(UsageRecord(at_s=time.time(), roles=roles))
                self._written[run] = now, roles


@contextmanager
def written_usage(store: Store, usage: UsageCounter, every_s: float = WRITE_S) -> Iterator[None]:
    """Write the counters to the store while the block lasts, and at its end."""
    writer, ending = UsageWriter(store, usage), threading.Event()

    def write() -> None:
        is_ending = False
        while not is_ending:
            is_ending = ending.wait(every_s)
            try:
                writer.write()
            except ProofloopError as error:  # the store is away: the next turn writes it
                log.info("usage_not_written", reason=str(error))
            except Exception:  # without this thread no budget of a run on services would end
                log.exception("usage_not_written")

    thread = threading.Thread(target=write, name="usage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(every_s)


def written(store: Store, run_id: str) -> Iterator[UsageRecord]:
    """The latest counters of each process that worked on the run."""
    for _, record in newest(store, keys.usages(run_id), UsageRecord):
        yield record


def added_up(
    records: Iterable[UsageRecord], clock: Callable[[], float] = time.time
) -> tuple[ByRole, dict[str, int]]:
    """The sum over all processes by role: cost, and calls in flight."""
    spent: dict[ModelRole, Spent] = defaultdict(Spent)
    flying: Counter[str] = Counter()
    for record in records:
        is_fresh = record.at_s > clock() - FRESH_S
        for role, of in record.roles.items():
            spent[role] += Spent(
                of.calls, of.prompt_tokens, of.completion_tokens, of.engine_seconds
            )
            flying[role] += of.in_flight if is_fresh else 0
    return spent, {role: count for role, count in flying.items() if count}


class ServicesUsage:
    """The usage of a run on services: the stored answers at its start, and the services' counters
    since.
    """

    def __init__(self, store: Store, spec: RunSpec) -> None:
        self._store, self._spec = store, spec
        self._before: ByRole = {}
        self._at_begin: ByRole = {}
        self._now: ByRole = {}
        self.in_flight: dict[str, int] = {}

    def begin(self) -> None:
        """Read the usage before this process. Raises StoreError."""
        self._before = spent_before(self._store, self._spec)
        self._at_begin, _ = added_up(written(self._store, self._spec.name))

    def read(self) -> None:
        """Read the services' counters. Raises StoreError."""
        self._now, self.in_flight = added_up(written(self._store, self._spec.name))

    @property
    def since_begin(self) -> ByRole:
        return {role: of - self._at_begin.get(role, Spent()) for role, of in self._now.items()}

    def used(self) -> ByRole:
        return summed(self._before, self.since_begin)


def spent_before(store: Store, spec: RunSpec) -> ByRole:
    """The cost of the stored answers by role, computed only for a run with a budget or prices."""
    if spec.budget == Budget() and spec.prices == Prices():
        return {}
    return costs(store, spec.name).by_role
