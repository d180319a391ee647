"""The resources of handlers. One `Tools` belongs to a process; all handlers share it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from proofloop.bus.tracing import Span, no_span
from proofloop.config.run_file import RunSpec
from proofloop.engine.base import Engine
from proofloop.errors import BusError, ConfigError, EngineError, ObjectError, StoreError
from proofloop.runs.budget import MessageGate, OpenGate
from proofloop.schema.records import ModelRole
from proofloop.store import R, Store, put_record
from proofloop.worker.calls.early_warning import EarlyWarnings
from proofloop.worker.calls.engine_health import EngineHealth
from proofloop.worker.calls.running_calls import RunningCalls
from proofloop.worker.calls.unusable_engine import RejectMessage, UnusableEnginePolicy
from proofloop.worker.calls.usage import UsageCounter
from proofloop.worker.calls.waiting import WaitingMessages
from proofloop.worker.metrics import WorkerMetrics
from proofloop.worker.run_cache import RunCache
from proofloop.worker.shutdown import Shutdown

log = structlog.get_logger()
T = TypeVar("T")

STORE_AWAY_S = 1.0
"""The pause between attempts to store a paid answer while the store is away."""

WARN_EVERY_S = 30.0
"""How often a process warns that its messages wait for the store or the broker."""


class Tools:
    """The store, the engines, and the process's state of runs and engines.

    `runs`: specs, prompts and served versions. `health`: the engines that answer. `shutdown`:
    whether the process is ending. `gate`: drops the messages of runs with a used-up budget.
    `unusable`: the policy for a message that no engine can answer; the default is a service's.
    `on_keep`: called with the key of each stored answer. `is_alone`: no other process works on the
    same runs.
    """

    def __init__(
        self,
        store: Store,
        engine_for: Callable[[RunSpec, ModelRole], Engine],
        *,
        metrics: WorkerMetrics | None = None,
        span: Span = no_span,
        shutdown: Shutdown | None = None,
        calls: RunningCalls | None = None,
        gate: MessageGate | None = None,
        unusable: UnusableEnginePolicy | None = None,
        early_warnings: EarlyWarnings | None = None,
        on_keep: Callable[[str], None] = lambda key: None,
        is_alone: bool = False,
    ) -> None:
        self.store = store
        self.engine_for = engine_for
        self.metrics = metrics or WorkerMetrics()
        self.span = span
        self.shutdown = shutdown or Shutdown()
        self.calls = calls or RunningCalls()
        self.gate = gate or OpenGate()
        self.unusable = unusable or RejectMessage(self.shutdown)
        self._on_keep = on_keep
        self._warn_s = {"store_away": -math.inf, "broker_away": -math.inf}
        self.early_warnings = early_warnings or EarlyWarnings(store)
        self.health = EngineHealth()
        self.usage = UsageCounter(self.calls)
        self.runs = RunCache(
            store,
            self.health.forget,
            on_created_again=self.usage.forget,
            is_alone=is_alone,
        )
        self.waiting = WaitingMessages(store, self.shutdown.cancelling)

    def engine(self, spec: RunSpec, role: ModelRole) -> Engine:
        """The role's engine. Raises EngineError if it cannot be opened here: only this run is
        affected.
        """
        try:
            return self.engine_for(spec, role)
        except ConfigError as error:
            raise EngineError(error.problem, hint=error.hint, retryable=False) from error

    def is_stored(self, key: str) -> bool:
        """Whether the store has the key; false for an empty one."""
        return bool(key) and self.store.exists(key)

    def keep(self, key: str, record: R) -> R:
        """Store a paid answer, and wait while the store is unavailable. Returns the stored record.
        Raises the errors of `patiently`.
        """
        kept = self.patiently(lambda: put_record(self.store, key, record))
        self._on_keep(key)
        return kept

    def patiently(self, action: Callable[[], T]) -> T:
        """Repeat an action while the store is unavailable: a paid answer depends on it. Raises
        StoreError if running calls are cancelled meanwhile, ObjectError at once.
        """
        while True:
            try:
                return action()
            except ObjectError:
                raise
            except StoreError as error:
                self.warn_away(error)
                if self.shutdown.cancelling.wait(STORE_AWAY_S):
                    raise

    def warn_away(self, error: StoreError | BusError) -> None:
        """Warn once in a while, not once per message and attempt."""
        event = "store_away" if isinstance(error, StoreError) else "broker_away"
        now_s = time.monotonic()
        if now_s >= self._warn_s[event]:
            self._warn_s[event] = now_s + WARN_EVERY_S
            log.warning(event, reason=str(error))
