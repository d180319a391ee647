"""A run on services: this process publishes its problems and watches the store for labels.

It may end at any time: the services finish the posed proofs, and the same command with --resume
poses the rest. A resumed run poses new problems at once. Those that an earlier process may have
posed wait until no queue has a message and no call of the run is in flight, because a second
message would pay for a second call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import structlog

from proofloop.bus import Bus, DeadLetter
from proofloop.config.run_file import Prices, RunSpec
from proofloop.errors import BusError, Interrupted, ObjectError, StoreError
from proofloop.pipeline.driver import Report, RunDriver
from proofloop.pipeline.earlier_messages import EarlierMessages
from proofloop.runs.budget import MARK_S, BudgetMark, Meter, RunClock
from proofloop.runs.costs import ByRole
from proofloop.runs.dead_letters import forget_posed_again, is_posed_again, proof_named
from proofloop.runs.labels import find_label
from proofloop.runs.planned import is_training, roles_of, steps_taken
from proofloop.runs.progress import ProgressTracker, RunProgress
from proofloop.schema import keys
from proofloop.schema.events import Event, read_event_of
from proofloop.store import Store, put_record
from proofloop.worker.calls.usage import WRITE_S, ServicesUsage

if TYPE_CHECKING:
    from proofloop.bus.dead_letters import DeadLetters

log = structlog.get_logger()
T = TypeVar("T")

POLL_S = 0.5
"""How often the store is asked for the labels of the open proofs."""

QUIET_S = 10.0
"""When neither a label nor a step came for this long, look through the dead letters."""

LOST_S = 600.0
"""If proofs are open and for this long no queue has a message and no call is in flight, their
messages were probably purged. Loading a model and RabbitMQ's retry of a delayed message (180 s)
take less.
"""

TRAINER_S = 600.0
"""How long the next problems wait for the trainer to begin a step, before the trainer is taken to
need more problems.
"""

STARTING_S, WORKERS_S = 3.0, 10.0
"""When the broker is first asked which roles have workers, and how often afterwards."""

CALLS_END_S = 20.0
"""How long the run waits for running calls once its budget is used up."""

AWAY_S = 2.0
"""The pause between attempts while the store or the broker is away; that does not end the run."""


class ServicesPipeline:
    """The event source of a run on the broker's workers. Use it as a context manager."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        letters: DeadLetters,
        spec: RunSpec,
        *,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._bus = bus
        self._letters = letters
        self._spec = spec
        self._stopping = stopping
        self._tracker = ProgressTracker(spec, store, 0, {})
        self._usage = ServicesUsage(store, spec)
        self._usage_s = float("-inf")
        self._clock: RunClock | None = None
        self.meter = Meter(
            spec, self._usage.used, lambda: self._clock.seconds if self._clock else 0.0
        )
        self._earlier: EarlierMessages | None = None
        """None once the messages of earlier processes are settled."""
        self._held: list[Event] = []
        """What an earlier process may have published too."""
        self._last_news_s = time.monotonic()
        self._idle_since_s: float | None = None
        self._unserved: tuple[str, ...] = ()
        self._reasons: set[str] = set()
        self._look_for_workers_s = time.monotonic() + STARTING_S

    def __enter__(self) -> ServicesPipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._clock:
            self._clock.keep(now=True)

    def run(self, report: Report = lambda progress: None) -> RunProgress:
        """Run to the end. Raises the errors of `RunDriver.run`."""
        return RunDriver(self._store, self._spec, self).run(report)

    # -- the event source

    def begin(self, tracker: ProgressTracker) -> None:
        """Count the earlier cost, let the services take the run's messages again, and drop the dead
        letters of proofs that are posed again.
        """
        self._tracker = tracker
        run = self._spec.name
        self.patiently(self._usage.begin)
        self._clock = self.patiently(lambda: RunClock(self._store, run))
        if not self.meter.over():
            self._remove_mark()
        self.patiently(
            lambda: self._letters.drop(
                lambda letter: is_posed_again(read_event_of(run, letter.body))
            )
        )
        self.patiently(lambda: forget_posed_again(self._store, run))
        if self.patiently(lambda: any(self._store.list(keys.problems(run)))):
            self._earlier = EarlierMessages(self._usage, self._letters)

    def _remove_mark(self) -> None:
        marks = keys.budget_marks(self._spec.name)
        if self.patiently(lambda: self._store.delete_prefix(marks)):
            # until then a service may believe in the mark, even with a slow store
            self._stopping.wait(2 * MARK_S + POLL_S)

    def publish(self, events: Sequence[Event], *, again: bool = False) -> None:
        if again and self._earlier:
            self._held.extend(events)
        else:
            self.patiently(lambda: self._bus.publish(events))
            self._note_news()

    def patiently(self, action: Callable[[], T]) -> T:
        """Repeat the action while store or broker is unavailable."""
        while True:
            self.check_stopping()
            try:
                return action()
            except ObjectError:
                raise
            except (StoreError, BusError) as error:
                log.warning("waiting_for_store_or_broker", reason=str(error))
                self._stopping.wait(AWAY_S)
                if self._earlier:
                    self._earlier.start_again()

    def wait(self) -> None:
        self._stopping.wait(POLL_S)
        if time.monotonic() >= self._look_for_workers_s:
            self._warn_of_unserved_roles()
        self._take_labels()
        if self._earlier and self.patiently(self._earlier.are_settled):
            self._earlier = None
            self.publish(self._held)
            self._held = []
        self.patiently(self._tracker.look_for_answers)
        if self._tracker.add_steps(self.patiently(lambda: steps_taken(self._store, self._spec))):
            self._note_news()
        if self._tracker.num_open and self._quiet_s > QUIET_S:
            self._set_stuck_aside()
            self._warn_of_lost_messages()

    def wait_for_room(self, most: int) -> None:
        self.wait()

    def is_done(self) -> bool:
        """Whether all proofs have labels, or the rest is stuck without hope of a late label."""
        if not self._tracker.without_label:
            return True
        return not self._tracker.num_open and self._quiet_s > QUIET_S

    def takes_no_step(self) -> bool:
        """Whether nothing has happened for a long time, no step is under way, and a trainer is
        there.
        """
        if self._tracker.num_open or self._quiet_s <= TRAINER_S:
            return False
        if self.patiently(self._is_training) or self.patiently(self._lacks_trainer):
            self._note_news()
            return False
        log.warning("trainer_takes_no_step", waited_s=TRAINER_S, run=self._spec.name)
        return True

    def training_failure(self) -> str:
        """The reason, looked up after a quiet moment."""
        if self._quiet_s <= QUIET_S:
            return ""
        return self.patiently(self._trainer_letter)

    def usage(self, *, at_end: bool = False) -> tuple[ByRole, Mapping[str, int]]:
        is_last = at_end and self._spec.prices != Prices()
        if is_last:  # each service writes its last counts within WRITE_S
            self._stopping.wait(WRITE_S + POLL_S)
        if is_last or time.monotonic() - self._usage_s >= WRITE_S:
            self._usage_s = time.monotonic()
            self.patiently(self._usage.read)
            if self._clock:
                self._clock.keep()
        return self._usage.since_begin, self._usage.in_flight

    def end_calls(self, limit: str, look: Callable[[], None]) -> None:
        """Mark the budget as used up, then wait a little. The services also store the replies of
        longer calls.
        """
        mark = BudgetMark(reason=limit)
        key = keys.budget_mark(self._spec.name)
        self.patiently(lambda: put_record(self._store, key, mark))
        begin_s = time.monotonic()
        while time.monotonic() < begin_s + CALLS_END_S:
            self._stopping.wait(WRITE_S / 2)
            self.patiently(self._usage.read)
            look()
            is_counted = time.monotonic() > begin_s + MARK_S + WRITE_S
            if is_counted and not self._usage.in_flight:
                break
        self._take_labels()

    def check_stopping(self) -> None:
        if self._stopping.is_set():
            raise Interrupted("asked to stop; the services finish what was posed")

    # -- what happened

    def _note_news(self) -> None:
        self._last_news_s, self._idle_since_s = time.monotonic(), None

    def _take_labels(self) -> None:
        for proof_id in sorted(self._tracker.without_label):
            label = self.patiently(partial(find_label, self._store, self._spec.name, proof_id))
            if label is not None:
                self._tracker.add_label(proof_id, label.outcome, solved=label.solved)
                self._note_news()

    def _set_stuck_aside(self) -> None:
        """Give the places of proofs with a dead letter to others. A late label still counts."""
        for letter in self.patiently(lambda: list(self._letters.letters())):
            if proof_id := self._proof_of(letter):
                self._tracker.add_dead(proof_id)
                self._warn_of_dead_letter(letter)
        self._last_news_s = time.monotonic()

    def _warn_of_dead_letter(self, letter: DeadLetter) -> None:
        """Warn once for each reason: the run may wait for long without these proofs."""
        reason = letter.reason or "unknown reason"
        if reason not in self._reasons:
            self._reasons.add(reason)
            log.warning("dead_letter", queue=letter.queue, reason=reason)

    def _warn_of_lost_messages(self) -> None:
        """Warn once per `LOST_S` while proofs are open and nothing works on them. The time before
        the first such look does not count: it may have been an outage.
        """
        depths, now_s = self.patiently(self._letters.depths), time.monotonic()
        if self._usage.in_flight or any(depth.ready or depth.later for depth in depths):
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif self._tracker.num_open and now_s - self._idle_since_s > LOST_S:
            self._idle_since_s = now_s
            log.warning(
                "messages_lost",
                open_proofs=self._tracker.num_open,
                reason=f"for {LOST_S:.0f} s no queue had a message and no call was in flight: a"
                " queue was probably purged",
                hint="stop this run and call it again with --resume: it poses these proofs again",
            )

    def _proof_of(self, letter: DeadLetter) -> str | None:
        """The proof of this run that the dead letter names."""
        return proof_named(read_event_of(self._spec.name, letter.body))

    def _is_training(self) -> bool:
        """Whether a step is under way that may still end: the trainer gave up no message of the
        run.
        """
        return is_training(self._store, self._spec) and not self._trainer_letter()

    def _lacks_trainer(self) -> bool:
        """Whether no worker serves the trainer, although it has given up no message of the run."""
        return bool(self._letters.unserved(["trainer"])) and not self._trainer_letter()

    def _trainer_letter(self) -> str:
        """The reason why the trainer gave up a message of this run; empty if it did not."""
        for letter in self._letters.letters():
            if letter.queue == "trainer" and read_event_of(self._spec.name, letter.body):
                return letter.reason or "unknown reason"
        return ""

    def _warn_of_unserved_roles(self) -> None:
        """Name the roles without workers, each time that they change."""
        roles = roles_of(self._spec)
        unserved = self.patiently(lambda: self._letters.unserved(roles))
        self._look_for_workers_s = time.monotonic() + WORKERS_S
        if unserved and unserved != self._unserved:
            start = "; ".join(f"proofloop serve {role}" for role in unserved)
            hint = f"the run waits for them: {start}"
            log.warning("roles_without_workers", roles=list(unserved), hint=hint)
        elif self._unserved and not unserved:
            log.warning("all_roles_have_workers", roles=list(roles))
        self._unserved = unserved

    @property
    def _quiet_s(self) -> float:
        return time.monotonic() - self._last_news_s
