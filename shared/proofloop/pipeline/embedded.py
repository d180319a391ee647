"""A run with all roles in this process: their workers on the local bus, over one store, without a
server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

import structlog

from proofloop.bus import DeadLetter, LocalBus
from proofloop.config.run_file import Budget, RunSpec
from proofloop.engine.base import Engine
from proofloop.errors import RESUME_HINT, HintedError, Interrupted, StoreError
from proofloop.pipeline.driver import Report, RunDriver
from proofloop.runs.budget import BudgetGate, Meter, RunClock
from proofloop.runs.costs import ByRole, summed
from proofloop.runs.dead_letters import DeadLetterRecord, forget_posed_again, proof_named
from proofloop.runs.flow import in_work
from proofloop.runs.planned import labeled_and_posed, roles_of
from proofloop.runs.progress import ProgressTracker, RunProgress
from proofloop.schema import keys
from proofloop.schema.events import Event, ModelPublished, ProofLabeled, read_event
from proofloop.store import LocalStore, Store
from proofloop.worker.calls.early_warning import EarlyWarnings
from proofloop.worker.calls.unusable_engine import StopProcess
from proofloop.worker.calls.usage import spent_before, written_usage
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import Role, load_role
from proofloop.worker.runtime import Worker
from proofloop.worker.shutdown import Shutdown
from proofloop.worker.tools import Tools

log = structlog.get_logger()
T = TypeVar("T")

WAIT_S = 0.2
"""The longest wait before the driver looks again."""

USAGE_S = 0.5
"""How often the calls are counted for the progress."""

GRACE_S = 30.0
"""How long leaving the pipeline waits for messages in work."""


class EmbeddedPipeline:
    """The workers of one run, and its event source. Use it as a context manager: leaving it stops
    the workers. `engine` replaces the engines of the run file.
    """

    def __init__(
        self,
        store: Store,
        engines: Engines,
        spec: RunSpec,
        *,
        stopping: threading.Event | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._store = store
        self._spec = spec
        self._shutdown = Shutdown(stopping)
        self.tools = Tools(
            store,
            engines.of if engine is None else lambda *_: engine,
            shutdown=self._shutdown,
            unusable=StopProcess(self._shutdown),
            early_warnings=EarlyWarnings(store, is_shown=True),
            on_keep=lambda key: self._tracker.add_answer(key),
            is_alone=isinstance(store, LocalStore),  # it is locked below
        )
        self._bus = LocalBus(on_dead=self._on_dead, on_publish=self._on_publish)
        self._tracker = ProgressTracker(spec, store, 0, {})
        self._closing = ExitStack()
        self._roles: list[Role] = []
        self._clock: RunClock | None = None
        self._gate: BudgetGate | None = None
        self._before: ByRole = {}
        self.meter = Meter(spec, self._used, lambda: self._clock.seconds if self._clock else 0.0)
        self._usage: tuple[ByRole, Mapping[str, int]] = {}, {}
        self._usage_s = 0.0
        self._is_idle = False
        self._untrained = ""
        self._dead: list[DeadLetterRecord] = []

    def __enter__(self) -> EmbeddedPipeline:
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _start(self) -> None:
        self._before = spent_before(self._store, self._spec)
        if isinstance(self._store, LocalStore):
            self._closing.enter_context(self._store.only_here(self._spec.name))
        self._closing.enter_context(written_usage(self._store, self.tools.usage))
        self._clock = RunClock(self._store, self._spec.name)
        if self._spec.budget != Budget():
            self._gate = BudgetGate(self.meter, self._shutdown.stopping)
            self.tools.gate = self._gate
        for name in roles_of(self._spec):
            role = load_role(name)
            self._roles.append(role)
            worker = Worker(role, self._bus, self.tools)
            worker.start(concurrency=in_work(self._spec, name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._shutdown.stop("the run was interrupted")
        with self._closing:
            self._bus.close(grace_s=GRACE_S)
            if kind is None:  # otherwise a message may still be in work
                for role in self._roles:
                    role.close()
            if self._clock:
                self._clock.keep(now=True)

    def run(self, report: Report = lambda progress: None) -> RunProgress:
        """Run to the end. Raises the errors of `RunDriver.run`."""
        return RunDriver(self._store, self._spec, self).run(report)

    def replay(self, events: Sequence[Event]) -> list[DeadLetterRecord]:
        """Deliver events again, and wait until all following work is done. Returns the messages
        that died. Raises Interrupted on a requested stop, BudgetUsedUp if the budget ended first.
        """
        self.publish(events)
        while not self._is_idle:
            self.wait()
            self.check_stopping()
        if self._gate and self._gate.has_dropped:
            raise self.meter.used_up(*labeled_and_posed(self._store, self._spec))
        return self._dead

    # -- the event source

    def begin(self, tracker: ProgressTracker) -> None:
        self._tracker = tracker
        forget_posed_again(self._store, self._spec.name)

    def publish(self, events: Sequence[Event], *, again: bool = False) -> None:
        self._is_idle = False
        self._bus.publish(events)

    def patiently(self, action: Callable[[], T]) -> T:
        """Repeat the action while the store is away, as the workers do with their paid answers."""
        try:
            return self.tools.patiently(action)
        except StoreError:
            self.check_stopping()
            raise

    def wait(self) -> None:
        """Wait for one answer if there is a search, which acts on every answer; else for all
        messages.
        """
        waits_for_news = self._spec.search.rounds and self._tracker.num_open
        if waits_for_news:
            self._tracker.wait_for_news(WAIT_S)
        self._is_idle = self._bus.wait_idle(0.0 if waits_for_news else WAIT_S)

    def wait_for_room(self, most: int) -> None:
        if self._spec.searches_by_need:
            self._tracker.wait_for_news(WAIT_S)
        else:
            self._tracker.wait_for_room(most, WAIT_S)

    def is_done(self) -> bool:
        return self._is_idle

    def takes_no_step(self) -> bool:
        """Whether the bus was idle: the trainer has then handled all labels."""
        return self._is_idle

    def training_failure(self) -> str:
        return self._untrained

    def usage(self, *, at_end: bool = False) -> tuple[ByRole, Mapping[str, int]]:
        if at_end or time.monotonic() - self._usage_s > USAGE_S:
            counter = self.tools.usage
            self._usage = counter.spent(self._spec.name), counter.in_flight(self._spec.name)
            self._usage_s = time.monotonic()
            if self._clock:
                self._clock.keep()
        return self._usage

    def end_calls(self, limit: str, look: Callable[[], None]) -> None:
        """Close the gate: no call starts any more."""
        self.wait()
        while not self._is_idle:
            look()
            self.wait()
        self.usage(at_end=True)
        look()

    def check_stopping(self) -> None:
        if not self._shutdown.is_stopping:
            return
        if self._shutdown.reason:
            raise HintedError(self._shutdown.reason, f"fix this, then {RESUME_HINT}")
        raise Interrupted("asked to stop")

    # -- called by the bus, in the workers' threads

    def _used(self) -> ByRole:
        return summed(self._before, self.tools.usage.spent(self._spec.name))

    def _on_publish(self, event: Event) -> None:
        if isinstance(event, ModelPublished) and (version := keys.parse_numbered(event.version)):
            self._tracker.add_steps({event.role: version.number})
        if isinstance(event, ProofLabeled):
            self._tracker.add_label(event.proof_id, event.outcome, solved=event.solved)
            self.tools.waiting.end(keys.label(event.run_id, event.proof_id))

    def _on_dead(self, letter: DeadLetter) -> None:
        """Give the proof's place to the next one, then store the dead letter. Storing comes last,
        because the proof must be given up even without a store.
        """
        log.error("dead_letter", queue=letter.queue, reason=letter.reason)
        if letter.queue == "trainer":
            self._untrained = self._untrained or letter.reason
        if proof_id := proof_named(read_event(letter.body)):
            self._tracker.add_dead(proof_id)
        record = DeadLetterRecord.of(letter)
        self._dead.append(record)
        record.keep(self._store, self._spec.name)
