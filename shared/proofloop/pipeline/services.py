"""A run on services of their own: this process poses what has no label, and watches the labels come
in the store.

It may end at any time: the services go on with what was posed, and the same command with --resume
poses the rest.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from proofloop.bus import Bus, DeadLetter
from proofloop.config.run_file import RunSpec
from proofloop.errors import BusError, CorruptObject, NotFound, ProofloopError, StoreError
from proofloop.pipeline.embedded import (
    WALK_ROLES,
    Interrupted,
    forget_letters_of_proofs,
    is_complete,
    is_training,
    planned,
    proof_named,
    steps_taken,
    stuck,
    used_up,
    with_usage,
)
from proofloop.runs.budget import MARK_S, BudgetMark, Meter, RunClock
from proofloop.runs.flow import most_waiting_proofs
from proofloop.runs.labels import find_label
from proofloop.runs.progress import ProgressTracker, RunProgress
from proofloop.schema import keys
from proofloop.schema.events import Event, ProblemPosed, ProofLabeled, read_event_of
from proofloop.schema.records import Label, Role
from proofloop.store import Store, put_record
from proofloop.worker.calls.usage import WRITE_S, ServicesUsage

if TYPE_CHECKING:
    from proofloop.bus.dead_letters import DeadLetters

log = structlog.get_logger()
T = TypeVar("T")

POLL_S = 0.5
"""How often the store is asked for the labels of the proofs that wait."""

QUIET_S = 10.0
"""When neither label nor step came for so long, the dead letters are looked through: their proofs
get no label.
"""

TRAINER_S = 600.0
"""How long the next problems wait for the trainer to begin the step that they may not outrun; its
end is waited for.

Where it begins none, a step's worth of problems is posed.
"""

STARTING_S, WORKERS_S = 3.0, 10.0
"""When the broker is first asked which roles have workers, and how often afterwards."""

CALLS_END_S = 20.0
"""How long the run waits for running calls once its budget is used up."""

AWAY_S = 2.0
"""The pause while the store or the broker is away; its absence does not end the run."""


def roles_of(spec: RunSpec) -> tuple[Role, ...]:
    """The roles that the run needs workers of."""
    return (*WALK_ROLES, "trainer") if spec.training.roles else WALK_ROLES


class RemoteWalk:
    """Runs one run from beginning to end on whatever workers serve the broker."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        letters: DeadLetters,
        spec: RunSpec,
        *,
        stopping: threading.Event,
    ) -> None:
        self._store, self._bus, self._letters, self._spec, self._stopping = (
            store,
            bus,
            letters,
            spec,
            stopping,
        )
        self._tracker = ProgressTracker(spec, store, 0, {})
        self._report: Callable[[RunProgress], None] = lambda progress: None
        self._last_news_s = time.monotonic()
        self._unserved: tuple[str, ...] = ()
        self._look_for_workers_s = time.monotonic() + STARTING_S
        self._usage = ServicesUsage(store, spec)
        self._counted_s = self._reported_s = float("-inf")
        self._clock: RunClock | None = None
        self._meter = Meter(
            spec, self._usage.used, lambda: self._clock.seconds if self._clock else 0.0
        )

    def run(
        self, planned_proofs: int, report: Callable[[RunProgress], None] = lambda progress: None
    ) -> RunProgress:
        """Pose everything that has no label and wait until all of it has one.

        Raises Interrupted when asked to stop, BudgetUsedUp, ProofloopError when proofs got stuck.
        """
        self._tracker = ProgressTracker(
            self._spec, self._store, planned_proofs, steps_taken(self._store, self._spec)
        )
        self._report = report
        self._begin_budget()
        self._forget_letters()
        try:
            self._go()
        finally:
            if self._clock:
                self._clock.keep(now=True)
        at_end = self._progress(at_end=True)
        self._report(at_end)
        return at_end

    def _go(self) -> None:
        for position, event in enumerate(self._planned()):
            while not self._may_pose(position // self._spec.problems.proofs_per_problem):
                self._look()
            self._pose(event)
            self._pose_refinements()
            self._watch()
        while waiting := self._waiting():
            self._look()
            if not self._tracker.num_open and self._quiet_s > QUIET_S:
                raise stuck(self._spec, self._tracker.progress().planned, waiting)

    def _begin_budget(self) -> None:
        """Count what was spent before, and have the services take messages of this run again."""
        self._patiently(self._usage.begin)
        self._clock = self._patiently(lambda: RunClock(self._store, self._spec.name))
        if self._meter.over():
            if self._patiently(lambda: is_complete(self._store, self._spec)):
                return
            raise used_up(self._meter, self._store, self._spec)
        if self._patiently(lambda: self._store.delete_prefix(keys.budget_marks(self._spec.name))):
            # until then a service may take the mark to be there, even with a slow store
            self._stopping.wait(2 * MARK_S + POLL_S)

    def _progress(self, *, at_end: bool = False) -> RunProgress:
        usage, now = self._usage, self._tracker.progress(at_end=at_end)
        return with_usage(now, self._meter, self._spec, usage.since_begin, usage.in_flight)

    def _count_usage(self) -> None:
        """Read what the services counted. Raises BudgetUsedUp."""
        if time.monotonic() - self._counted_s < WRITE_S:
            return
        self._counted_s = time.monotonic()
        self._patiently(self._usage.read)
        if self._clock:
            self._clock.keep()
        if limit := self._meter.over():
            self._patiently(lambda: self._mark(limit))
            self._wait_for_calls()
            if self._patiently(lambda: is_complete(self._store, self._spec)):
                return
            raise used_up(self._meter, self._store, self._spec, sum(self._usage.in_flight.values()))

    def _mark(self, limit: str) -> None:
        put_record(self._store, keys.budget_mark(self._spec.name), BudgetMark(reason=limit))

    def _wait_for_calls(self) -> None:
        """Wait a little for the calls that run; the services keep their answers, however long they
        take.
        """
        end_s = time.monotonic() + CALLS_END_S
        while time.monotonic() < end_s:
            self._stopping.wait(WRITE_S / 2)
            self._check_stopping()
            self._patiently(self._usage.read)
            self._report(self._progress())
            if (
                not self._usage.in_flight
                and time.monotonic() > end_s - CALLS_END_S + MARK_S + WRITE_S
            ):
                return

    def _forget_letters(self) -> None:
        """Drop the dead letters of what is posed again: they would say that it has died."""
        self._patiently(
            lambda: self._letters.drop(lambda letter: self._proof_of(letter) is not None)
        )
        self._patiently(lambda: forget_letters_of_proofs(self._store, self._spec.name))

    def _planned(self) -> Iterator[ProblemPosed]:
        """The same proofs in the same order each time: after an absence of the store it goes on
        where it was.
        """
        count = 0
        while True:
            try:
                for event in itertools.islice(planned(self._spec, self._store), count, None):
                    count += 1
                    yield event
                return
            except StoreError as error:
                self._wait_out(error)

    def _may_pose(self, problem: int) -> bool:
        """Neither more than may wait, nor further ahead of the trainer than the run allows."""
        if self._is_full():
            return False
        if self._tracker.may_pose(problem):
            return True
        if self._tracker.num_open or self._quiet_s <= TRAINER_S:
            return False
        if self._patiently(self._is_training):
            self._last_news_s = time.monotonic()
            return False
        log.warning("trainer_takes_no_step", waited_s=TRAINER_S, run=self._spec.name)
        self._tracker.expect_no_step()
        return self._tracker.may_pose(problem)

    def _is_training(self) -> bool:
        """Whether a step is under way that may still end: no message of the run died in the
        trainer.
        """
        if not is_training(self._store, self._spec):
            return False
        dead = (letter.body for letter in self._letters.letters() if letter.queue == "trainer")
        return not any(read_event_of(self._spec.name, body) for body in dead)

    def _is_full(self) -> bool:
        return self._tracker.num_open >= most_waiting_proofs(self._spec)

    def _waiting(self) -> set[str]:
        """The proofs without a label, when all that the searches ask for by now is posed."""
        self._pose_refinements()
        return self._tracker.without_label

    def _pose_refinements(self) -> None:
        while (event := self._patiently(self._tracker.next_refinement)) is not None:
            while self._is_full():
                self._look()
            self._pose(event)
            self._watch()

    def _pose(self, event: ProblemPosed) -> None:
        label = self._patiently(lambda: find_label(self._store, event.run_id, event.proof_id))
        self._tracker.add_posed(event)
        if label is None:
            self._patiently(lambda: self._bus.publish([event]))
            return
        self._count(label, was_stored=True)
        if self._spec.training.roles:
            announced: Event = ProofLabeled.of(label)
            self._patiently(lambda: self._bus.publish([announced]))

    def _watch(self) -> None:
        """Look at the budget and show the progress now and then, also while everything posed has
        its label already.
        """
        self._count_usage()
        if time.monotonic() - self._reported_s > POLL_S:
            self._reported_s = time.monotonic()
            self._report(self._progress())

    def _look(self) -> None:
        """Wait a moment, then count the labels that came."""
        self._watch()
        self._stopping.wait(POLL_S)
        if time.monotonic() >= self._look_for_workers_s:
            self._warn_of_unserved_roles()
        for proof_id in sorted(self._tracker.without_label):
            self._check_stopping()
            label = self._patiently(partial(find_label, self._store, self._spec.name, proof_id))
            if label is not None:
                self._count(label)
        if self._tracker.add_steps(self._patiently(lambda: steps_taken(self._store, self._spec))):
            self._last_news_s = time.monotonic()
        if self._tracker.num_open and self._quiet_s > QUIET_S:
            self._set_stuck_aside()

    def _warn_of_unserved_roles(self) -> None:
        """Name the roles that no worker serves, each time that they are others."""
        unserved = self._patiently(lambda: self._letters.unserved(roles_of(self._spec)))
        self._look_for_workers_s = time.monotonic() + WORKERS_S
        if unserved and unserved != self._unserved:
            start = "; ".join(f"proofloop serve {role}" for role in unserved)
            log.warning(
                "roles_without_workers",
                roles=list(unserved),
                hint=f"the run waits for them: {start}",
            )
        elif self._unserved and not unserved:
            log.warning("all_roles_have_workers", roles=list(roles_of(self._spec)))
        self._unserved = unserved

    def _set_stuck_aside(self) -> None:
        """Give the places of proofs with a dead letter to others; should a label come all the same,
        it counts.
        """
        for letter in self._patiently(lambda: list(self._letters.letters())):
            if proof_id := self._proof_of(letter):
                self._tracker.add_dead(proof_id)
        self._last_news_s = time.monotonic()

    def _proof_of(self, letter: DeadLetter) -> str | None:
        """The proof of this run that the letter names."""
        return proof_named(read_event_of(self._spec.name, letter.body))

    def _count(self, label: Label, *, was_stored: bool = False) -> None:
        self._tracker.add_label(
            label.proof_id, label.outcome, solved=label.solved, was_stored=was_stored
        )
        self._last_news_s = time.monotonic()

    @property
    def _quiet_s(self) -> float:
        return time.monotonic() - self._last_news_s

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do it, again and again while the store or the broker is away."""
        while True:
            self._check_stopping()
            try:
                return action()
            except (StoreError, BusError) as error:
                self._wait_out(error)

    def _wait_out(self, error: ProofloopError) -> None:
        if isinstance(error, NotFound | CorruptObject):
            raise error
        log.warning("waiting_for_store_or_broker", reason=str(error))
        self._stopping.wait(AWAY_S)
        self._check_stopping()

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise Interrupted("asked to stop; the services go on with what was posed")
