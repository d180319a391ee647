"""What every role runs on.

An event comes in, the role's handler reads and writes the store and yields events, the runtime does
the rest.

The order is always the same: the handler stores, the runtime publishes what it yielded, waits for
the confirm, then acknowledges. A handler sends nothing itself, and every handler is safe to run
twice: it looks for its own output before it spends anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

import structlog

from proofloop.bus import ACK, DELIVERY_LIMIT, Bus, BusState, Delivery, Outcome
from proofloop.bus.tracing import Span, no_span
from proofloop.config.run_file import RunSpec
from proofloop.engine.base import Engine, prepare
from proofloop.errors import (
    BusError,
    ConfigError,
    CorruptObject,
    EngineError,
    NotFound,
    ProofloopError,
    Reject,
    Retry,
    StoreError,
    install_hint,
)
from proofloop.method.prompts import PromptPack, Reader
from proofloop.runs.budget import MessageGate, OpenGate
from proofloop.runs.model_registry import (
    is_adopted,
    last_served,
    put_in_service,
    served_log,
    verify_version,
)
from proofloop.runs.spec import get_spec
from proofloop.schema import keys
from proofloop.schema.events import Event, ModelPublished, decode
from proofloop.schema.records import Judgement, ModelRole, Problem
from proofloop.store import R, Store, get_record, put_record
from proofloop.worker.early_warning import EarlyWarnings
from proofloop.worker.failing_calls import FailingCalls
from proofloop.worker.metrics import WorkerMetrics
from proofloop.worker.running_calls import LookAgain, RunningCalls
from proofloop.worker.usage import UsageCounter

log = structlog.get_logger()

T = TypeVar("T")
Handler = Callable[[Any, "Tools"], Iterator[Event]]

SERVED_CACHE_S = 0.5
"""How long a worker may go on using a version after another was put in service."""

SPEC_CACHE_S = 5.0
"""How long a worker may go on with a run's spec after the run was resumed with another."""

RUNS_KEPT = 64
"""Runs whose specs a worker remembers."""

PREPARE_AGAIN_S = 5.0
"""How long a published version waits before an engine that is away is asked again to load it."""

UNLOADED_S = 60.0
"""A published version that nothing loads for so long is warned of, and again after as long."""

STORE_AWAY_S = 1.0
"""Between attempts to reach the store for what was paid for."""

FAILED_SHARE_LIMIT, FAILED_MINIMUM = 0.2, 25
"""A worker stops when more than this share of its messages, and at least so many, failed: the fault
is its own.
"""


WORKER_DIED = "delivered {} times; each time its worker died, or lost it"
"""The broker has a limit for such messages too, but counts anew when a message was put off because
of a lease.
"""

AWAY_S = 2.0
"""How long a message waits before a store or broker that was away is tried again."""

COUNTED_AS = {"ack": "acked", "requeue": "requeued", "failed": "failed", "dead": "dead"}
"""The outcomes as the metrics name them."""

ABOUT = {"run": "run_id", "problem": "problem_id", "proof": "proof_id", "version": "version"}
"""What every line of the log says of the message being handled, and which field of the event has
it.
"""

MODEL = "model"
"""Under this name the log has the model version that was asked for this message."""


@dataclass(frozen=True)
class Role:
    """One of the five services: the routing keys it listens to, each with its handler.

    `check` raises ConfigError for a run that it cannot do.
    """

    name: str
    handlers: Mapping[str, Handler]
    check: Callable[[RunSpec], None] = lambda spec: None


def load_role(name: str) -> Role:
    """The installed role of that name. Raises ConfigError."""
    found = {point.name: point for point in entry_points(group="proofloop.roles")}
    if name not in found:
        raise ConfigError(
            f"role {name!r} is not installed",
            f"installed: {', '.join(sorted(found)) or 'none'}; {install_hint(name)}",
        )
    role = found[name].load()()
    assert isinstance(role, Role)
    return role


@dataclass
class Tools:
    """What a handler may use.

    `stopping` is set when the process is asked to end; when `cancelling` is set, the same event
    unless another is given, running engine calls are cancelled and their messages requeued.
    `has_one_run`: the process is there for a single run, so what ends the run ends the process.
    `gate`: drops the messages of runs whose budget is used up.
    """

    store: Store
    engine_for: Callable[[RunSpec, ModelRole], Engine]
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    span: Span = no_span
    stopping: threading.Event = field(default_factory=threading.Event)
    cancelling: threading.Event | None = None
    stop_reason: str = ""
    has_one_run: bool = False
    calls: RunningCalls = field(default_factory=RunningCalls)
    gate: MessageGate = field(default_factory=OpenGate)

    def __post_init__(self) -> None:
        self.usage = UsageCounter(self.calls)
        self._specs: dict[str, tuple[float, RunSpec]] = {}
        self._reading = threading.Lock()  # as `_looking`, of specs
        self.pack = lru_cache(maxsize=64)(self._load_pack)
        self.problem = lru_cache(maxsize=1024)(self._load_problem)
        self.judgement = lru_cache(maxsize=4096)(self._load_judgement)
        self._served: dict[tuple[str, ModelRole], tuple[float, str]] = {}
        self._looking = (
            threading.Lock()
        )  # one thread asks the store, the others go on with what they know
        self.taken: set[tuple[str, ModelRole, str]] = set()
        """The versions, by run and role, of which the engine took a call: it refuses some, not
        all.
        """
        self.failing = FailingCalls()
        self.early_warnings = EarlyWarnings(self.store, is_shown=self.has_one_run)
        self.unloaded: dict[tuple[str, ModelRole], float] = {}
        """Since when a run's role has a published version that nothing loads, or when that was last
        said.
        """

    def spec(self, run_id: str) -> RunSpec:
        """The run's spec, which a resumed run may have changed a moment ago.

        While the store is away it is the known one: an answer that was paid for is read by it.
        """
        known = self._specs.get(run_id)
        if known is not None and time.monotonic() - known[0] < SPEC_CACHE_S:
            return known[1]
        if not self._reading.acquire(blocking=known is None):
            assert known is not None
            return known[1]  # another thread reads the new one
        try:
            return self._read_spec(run_id)
        finally:
            self._reading.release()

    def _read_spec(self, run_id: str) -> RunSpec:
        known = self._specs.get(run_id)
        if known is not None and time.monotonic() - known[0] < SPEC_CACHE_S:
            return known[1]
        try:
            spec = get_spec(self.store, run_id)
        except StoreError:
            if known is None:
                raise
            spec = known[1]
        if known is not None and spec.engine != known[1].engine:
            log.info("engine_moved", run=run_id)
            self.taken.difference_update([one for one in tuple(self.taken) if one[0] == run_id])
        self._specs.pop(run_id, None)  # the runs that are worked on stand last
        self._specs[run_id] = (time.monotonic(), spec)
        if len(self._specs) > RUNS_KEPT:
            self._specs.pop(next(iter(self._specs)))
        return spec

    def reader(self, run_id: str) -> Reader:
        """What reads the answers of the run's models."""
        return self.pack(run_id).reader(self.spec(run_id).how_to_read)

    def engine(self, spec: RunSpec, role: ModelRole) -> Engine:
        """The role's engine. Raises EngineError where it cannot be opened here: that is a matter of
        this run alone.
        """
        try:
            return self.engine_for(spec, role)
        except ConfigError as error:
            raise EngineError(str(error).replace("\nhint: ", "; "), retryable=False) from error

    def serving(self, run_id: str, role: ModelRole) -> str:
        """The version of a role's model that is in service now."""
        name = (run_id, role)
        if not self._is_fresh(name) and self._looking.acquire(blocking=name not in self._served):
            try:
                if not self._is_fresh(name):
                    version = last_served(self.store, run_id, role) or self.spec(run_id).model_of(
                        role
                    )
                    self._served[name] = (time.monotonic(), version)
            finally:
                self._looking.release()
        return self._served[name][1]

    def _is_fresh(self, name: tuple[str, ModelRole]) -> bool:
        return name in self._served and time.monotonic() - self._served[name][0] < SERVED_CACHE_S

    @property
    def must_cancel(self) -> bool:
        return self._end.is_set()

    @property
    def _end(self) -> threading.Event:
        """Set when running calls, and what waits for the store, are given up."""
        return self.cancelling or self.stopping

    def keep(self, key: str, record: R) -> R:
        """Write what a model was paid for, however long the store is away; the record that lies
        there afterwards.

        Raises what `patiently` raises.
        """
        return self.patiently(lambda: put_record(self.store, key, record))

    def patiently(self, action: Callable[[], T]) -> T:
        """Do with the store what must not fail, because a model was paid for it, however long the
        store is away.

        Raises StoreError only if running calls are cancelled meanwhile, or what lies there cannot
        be read.
        """
        while True:
            try:
                return action()
            except (NotFound, CorruptObject):
                raise
            except StoreError as error:
                log.warning("store_awaited", reason=str(error))
                if self._end.wait(STORE_AWAY_S):
                    raise

    def stop(self, reason: str) -> None:
        """Ask the process to end, because of `reason`."""
        self.stop_reason = self.stop_reason or reason
        self.stopping.set()

    def _load_pack(self, run_id: str) -> PromptPack:
        return get_record(self.store, keys.prompts(run_id), PromptPack)

    def _load_judgement(self, key: str) -> Judgement:
        return get_record(self.store, key, Judgement)

    def _load_problem(self, run_id: str, problem_id: str) -> Problem:
        return get_record(self.store, keys.problem(run_id, problem_id), Problem)


def adopt(event: ModelPublished, tools: Tools) -> Iterator[Event]:
    """The handler of `ModelPublished` for a role that asks a model: serve the version from the next
    message on.

    An event that comes after that of a later version changes nothing.
    """
    if is_adopted(served_log(tools.store, event.run_id, event.role), event.version):
        return
    verify_version(tools.store, event.version)  # a damaged one leaves the old one serving
    try:
        prepare(tools.engine(tools.spec(event.run_id), event.role), event.version)
    except EngineError as error:
        problem = (
            f"the engine cannot load {event.version!r}, the old version goes on serving: {error}"
        )
        if not error.retryable:
            raise Reject(problem) from error
        _warn_of_unloaded(event, tools, problem)
        raise Retry(problem, after_s=PREPARE_AGAIN_S) from error
    tools.unloaded.pop((event.run_id, event.role), None)
    put_in_service(tools.store, event.run_id, event.role, event.version)
    yield from ()


def _warn_of_unloaded(event: ModelPublished, tools: Tools, problem: str) -> None:
    about, now = (event.run_id, event.role), time.monotonic()
    if now - tools.unloaded.setdefault(about, now) >= UNLOADED_S:
        tools.unloaded[about] = now
        log.warning("version_not_loaded", reason=problem)


class Worker:
    """One role at work on a bus."""

    def __init__(self, role: Role, bus: Bus, tools: Tools) -> None:
        self.role = role
        self._bus = bus
        self._tools = tools
        self._in_work = tools.metrics.in_work.labels(role.name)

    def start(self, *, concurrency: int) -> None:
        self._tools.metrics.begin(self.role.name)
        connected = self._tools.metrics.broker_connected.labels(self.role.name)
        connected.set_function(lambda: float(self._bus.state() == BusState()))
        self._bus.serve(self.role.name, self.role.handlers, self.process, concurrency=concurrency)

    def process(self, delivery: Delivery) -> Outcome:
        """Handle one delivery, whatever it is. Nothing escapes: an exception becomes an outcome."""
        wait_s = (
            None if delivery.published_s is None else max(0.0, time.time() - delivery.published_s)
        )
        began_s = time.perf_counter()
        with self._in_work.track_inprogress():
            event, outcome = self._process(delivery)
        metrics, role, counted = self._tools.metrics, self.role.name, COUNTED_AS[outcome.kind]
        if wait_s is not None:
            metrics.queue_wait.labels(role, event).observe(wait_s)
        metrics.handling.labels(role, event, counted).observe(time.perf_counter() - began_s)
        metrics.messages.labels(role, counted).inc()
        if outcome.kind in ("failed", "dead"):
            self._count_failure(delivery, outcome)
        return outcome

    def _process(self, delivery: Delivery) -> tuple[str, Outcome]:
        """The event's name and what became of it; every line logged meanwhile says which message it
        is about.
        """
        try:
            event = decode(delivery.body)
        except Reject as refusal:
            return "unknown", self._dead(refusal)
        about = {name: getattr(event, attribute, None) for name, attribute in ABOUT.items()}
        with structlog.contextvars.bound_contextvars(
            role=self.role.name,
            message=event.id,
            attempt=delivery.attempt,
            **{name: value for name, value in about.items() if value is not None},
        ):
            if delivery.attempt > DELIVERY_LIMIT + 1:
                return event.name, self._dead(Reject(WORKER_DIED.format(delivery.attempt - 1)))
            calls, stopping = self._tools.calls, self._tools.stopping
            try:
                with (
                    self._tools.span(
                        event.name,
                        event.run_id,
                        getattr(event, "proof_id", event.id),
                        message=event.id,
                    ),
                    calls.message(
                        redelivered=delivery.redelivered,
                        attempt=delivery.attempt,
                        stopping=stopping,
                    ),
                ):
                    return event.name, self._handle(event)
            finally:
                structlog.contextvars.unbind_contextvars(MODEL)

    def _handle(self, event: Event) -> Outcome:
        try:
            with self._tools.gate.message(event, self.role.name) as is_wanted:
                if is_wanted:
                    self._bus.publish(self._events(event))
                else:
                    log.info(
                        "message_dropped",
                        reason="the run's budget is used up, or the run was stopped",
                    )
        except Retry as wish:
            log.info("message_postponed", reason=str(wish), after_s=wish.after_s)
            return self._later("asked", wish, wish.after_s)
        except (NotFound, CorruptObject) as error:
            reason = f"the store lacks what the message names: {error}"
            log.warning("message_failed", reason=reason)
            return Outcome("failed", reason)
        except (StoreError, BusError) as error:
            away = "store" if isinstance(error, StoreError) else "broker"
            log.warning(f"{away}_away", reason=str(error))
            return self._later(away, error, AWAY_S)
        except Reject as refusal:
            return self._dead(refusal)
        except Exception as error:  # a bug: the delivery limit decides how often it is tried again
            log.exception("handler_failed")
            return Outcome("failed", f"{type(error).__name__}: {error}", error=error)
        return ACK

    def _events(self, event: Event) -> tuple[Event, ...]:
        handler = self.role.handlers[event.routing_key]
        try:
            return tuple(handler(event, self._tools))
        except LookAgain:
            return tuple(handler(event, self._tools))

    def _later(self, because: str, error: ProofloopError, after_s: float) -> Outcome:
        self._tools.metrics.retries.labels(self.role.name, because).inc()
        return Outcome("requeue", str(error), after_s)

    def _dead(self, refusal: Reject) -> Outcome:
        log.error("message_dead", reason=str(refusal))
        return Outcome("dead", str(refusal))

    def _count_failure(self, delivery: Delivery, outcome: Outcome) -> None:
        """Count what comes again or is given up, and stop when too much of it does.

        A message that no engine can answer says something of its run, nothing of this worker.
        """
        metrics, role = self._tools.metrics, self.role.name
        if outcome.kind == "failed" and delivery.attempt < DELIVERY_LIMIT:
            metrics.retries.labels(role, "failure").inc()
        else:
            metrics.dead_letters.labels(role).inc()
        bad = sum(
            metrics.total(metrics.messages, role=role, outcome=kind) for kind in ("failed", "dead")
        )
        bad -= metrics.total(metrics.engine_failures, role=role, reason="unusable")
        seen = bad + metrics.total(metrics.messages, role=role, outcome="acked")
        if bad >= FAILED_MINIMUM and bad > FAILED_SHARE_LIMIT * seen:
            self._tools.stop(
                f"{bad} of {seen} messages of the {role} failed, the last because: {outcome.reason}"
            )
