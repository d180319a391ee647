"""Drives a run from beginning to end: poses its problems, refinements and searches until all proofs
have labels.

An `EventSource` reports what happens: `embedded` for roles in this process, `services` for roles
elsewhere. The rules are here, once: how many proofs may wait, how far the trainer may lag behind,
the effect of a dead letter and of a used-up budget, and the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from proofloop.config.run_file import Prices, RunSpec
from proofloop.errors import RESUME_HINT, BudgetUsedUp, HintedError
from proofloop.pipeline.posing import Entry, Posing
from proofloop.runs.budget import Meter
from proofloop.runs.costs import ByRole, Spent
from proofloop.runs.flow import most_waiting_proofs
from proofloop.runs.labels import find_label
from proofloop.runs.planned import (
    is_complete,
    is_fine_tuned,
    keep_problem,
    labeled_and_posed,
    owes_steps,
    planned_proofs,
    steps_taken,
    supervised_steps,
)
from proofloop.runs.progress import ProgressTracker, RunProgress
from proofloop.schema.events import Event, FineTuningPosed, ProofLabeled
from proofloop.schema.records import ALL_ROLES
from proofloop.store import Store

T = TypeVar("T")

Report = Callable[[RunProgress], None]

UNTRAINED = "all proofs are labeled, but the trainer failed"


class EventSource(Protocol):
    """Publishes a run's events and reports their results. One thread drives it. `meter`: the run's
    use of its budget.
    """

    meter: Meter

    def begin(self, tracker: ProgressTracker) -> None:
        """Report labels, steps and dead letters to `tracker` from now on."""
        ...

    def publish(self, events: Sequence[Event], *, again: bool = False) -> None:
        """`again`: an earlier process of this run may have published them."""
        ...

    def patiently(self, action: Callable[[], T]) -> T:
        """The action's result. The source decides about an unavailable store."""
        ...

    def wait(self) -> None:
        """Wait a moment, or until no message of the run is in work."""
        ...

    def wait_for_room(self, most: int) -> None:
        """Wait a moment, or until fewer than `most` proofs are open."""
        ...

    def is_done(self) -> bool:
        """Whether the run stands still until more is published, as of the last wait."""
        ...

    def takes_no_step(self) -> bool:
        """Whether the trainer will take no step with the present labels, as of the last wait."""
        ...

    def training_failure(self) -> str:
        """The reason why the trainer gave up a message of this run; empty if it did not."""
        ...

    def usage(self, *, at_end: bool = False) -> tuple[ByRole, Mapping[str, int]]:
        """The cost of the calls since the run was resumed, and the calls in flight, by role."""
        ...

    def end_calls(self, limit: str, look: Callable[[], None]) -> None:
        """Start no more calls, because the budget's `limit` is reached, and wait for the running
        ones. Calls `look` meanwhile.
        """
        ...

    def check_stopping(self) -> None:
        """Raise Interrupted if a stop was requested, ProofloopError if the process must stop."""
        ...


class RunDriver:
    """Runs one run on an event source."""

    def __init__(self, store: Store, spec: RunSpec, source: EventSource) -> None:
        self._store = store
        self._spec = spec
        self._source = source
        self._report: Report = lambda progress: None
        self._most_waiting = most_waiting_proofs(spec)
        self._tracker = ProgressTracker(spec, store, 0, {})
        self._posing = Posing(store, spec, lambda: self._tracker.steps)
        self._was_over_budget = False
        self._has_ended_calls = False

    def run(self, report: Report = lambda progress: None) -> RunProgress:
        """Pose all proofs without a label, and wait until all are done. Raises Interrupted on a
        requested stop, BudgetUsedUp, ProofloopError for stuck proofs.
        """
        self._report = report
        steps = self._source.patiently(lambda: steps_taken(self._store, self._spec))
        planned = self._source.patiently(lambda: planned_proofs(self._spec, self._store))
        self._tracker = ProgressTracker(self._spec, self._store, planned, steps)
        self._source.begin(self._tracker)
        self._was_over_budget = bool(self._source.meter.over())
        if self._spec.fine_tuning:
            self._fine_tune()
        else:
            problems = self._pose_planned()
            self._finish()
            self._check_complete()
            self._finish_training(problems)
        at_end = self._progress(at_end=True)
        report(at_end)
        return at_end

    # -- posing

    def _pose_planned(self) -> int:
        """Pose the first proofs of every problem. Returns the number of problems."""
        number = -1
        for number, (problem, entries) in enumerate(self._posing.problems()):
            keep = partial(keep_problem, self._store, self._spec, problem)
            is_new = self._source.patiently(keep)
            for entry in entries:
                self._wait_for_trainer(number)
                self._pose(entry, again=not is_new)
                self._advance_searches()
                self._look()
        return number + 1

    def _finish(self) -> None:
        """Pose the requests of the searches until no message is in work."""
        while True:
            is_done = self._source.is_done()  # before the searches: a label may come in between
            if not self._advance_searches() and is_done:
                return
            self._source.wait()
            self._look()

    def _finish_training(self, problems: int) -> None:
        """Wait for the steps that this many labeled problems allow."""
        if not self._spec.training.roles:
            return
        owes = partial(owes_steps, self._store, self._spec, problems)
        while not self._source.takes_no_step():
            if not self._source.patiently(lambda: owes(self._tracker.steps)):
                return
            self._check_trainer(UNTRAINED)
            self._source.wait()
            self._look()
        self._check_trainer(UNTRAINED)

    def _fine_tune(self) -> None:
        """Ask the trainer for the supervised training, and wait for its model."""
        self._source.publish([FineTuningPosed(run_id=self._spec.name)])
        while not self._source.patiently(lambda: is_fine_tuned(self._store, self._spec)):
            self._check_trainer("the supervised training failed")
            self._source.wait()
            count = partial(supervised_steps, self._store, self._spec.name)
            self._tracker.add_steps({ALL_ROLES: self._source.patiently(count)})
            self._look()

    def _check_trainer(self, problem: str) -> None:
        """Raise HintedError if the trainer gave up a message."""
        if reason := self._source.training_failure():
            raise HintedError(
                f"{problem}: {reason}",
                f"`proofloop dead list --run {self._spec.name}` lists the message; fix this, then"
                f" {RESUME_HINT}",
            )

    def _wait_for_trainer(self, problem: int) -> None:
        """Wait while the run is too far ahead of the trainer. If the present labels give the
        trainer no step, they taught nothing: pose the problems of one more step.
        """
        while not self._tracker.may_pose(problem):
            self._source.wait()
            self._look()
            if self._source.takes_no_step() and not self._tracker.may_pose(problem):
                self._tracker.expect_no_step()

    def _advance_searches(self) -> bool:
        """Publish the needs of the searches; true if there were any."""
        has_more = self._meet_needs()
        while (event := self._source.patiently(self._tracker.next_refinement)) is not None:
            self._pose(Entry.of(event), again=True)
            self._meet_needs()
            self._look()
            has_more = True
        return has_more

    def _meet_needs(self) -> bool:
        """Publish the critiques and judgements that the searches need, and close the proofs that
        they no longer need; true if there were any.
        """
        running = self._source.usage()[1].get("verifier", 0)
        needs = self._source.patiently(lambda: self._tracker.search_needs(running))
        for label in needs.labels:
            self._tracker.add_label(label.proof_id, label.outcome, solved=label.solved)
        if needs.labels:
            self._source.publish([*map(ProofLabeled.of, needs.labels)])
        if needs.events:
            self._source.publish(needs.events, again=True)
        return bool(needs.labels or needs.events)

    def _pose(self, entry: Entry, *, again: bool) -> None:
        find = partial(find_label, self._store, self._spec.name, entry.proof_id)
        label = self._source.patiently(find)
        if label is not None:
            self._tracker.add_posed(entry.proof_id, entry.posed)
            self._tracker.add_label(
                label.proof_id, label.outcome, solved=label.solved, was_stored=True
            )
            if self._spec.training.roles:
                self._source.publish([ProofLabeled.of(label)])
            return
        while self._tracker.num_in_work >= self._most_waiting:
            self._source.wait_for_room(self._most_waiting)
            self._meet_needs()
            self._look()
        self._source.check_stopping()
        self._check_budget()
        events = self._source.patiently(entry.events)
        self._tracker.add_posed(entry.proof_id, entry.posed)
        self._source.publish(events, again=again)

    # -- watching

    def _look(self) -> None:
        """Check whether to stop, and report the progress."""
        self._source.check_stopping()
        progress = self._progress()
        if not self._was_over_budget:  # else stored labels may complete the run all the same
            self._check_budget()
        self._report(progress)

    def _show(self) -> None:
        self._source.check_stopping()
        self._report(self._progress())

    def _progress(self, *, at_end: bool = False) -> RunProgress:
        by_role, in_flight = self._source.usage(at_end=at_end)
        spent = sum(by_role.values(), start=Spent())
        return replace(
            self._tracker.progress(at_end=at_end),
            calls=dict(in_flight),
            answered=int(spent.calls),
            tokens=int(spent.prompt_tokens + spent.completion_tokens),
            money=None if self._spec.prices == Prices() else self._source.meter.money,
        )

    def _check_budget(self) -> None:
        """End the calls once the budget is used up. Raises BudgetUsedUp unless the run is complete
        by then.
        """
        if self._has_ended_calls or not (limit := self._source.meter.over()):
            return
        if not self._was_over_budget:
            self._source.end_calls(limit, self._show)
        self._has_ended_calls = True
        has_more = self._source.patiently(self._tracker.next_refinement) is not None
        if has_more or not self._source.patiently(lambda: is_complete(self._store, self._spec)):
            raise self._used_up()

    def _used_up(self) -> BudgetUsedUp:
        """The error, which names the missing proofs and the calls that end without this process."""
        _, in_flight = self._source.usage()
        count = partial(labeled_and_posed, self._store, self._spec)
        labeled, posed = self._source.patiently(count)
        return self._source.meter.used_up(labeled, posed, sum(in_flight.values()))

    def _check_complete(self) -> None:
        if missing := self._tracker.without_label:
            some = ", ".join(sorted(missing)[:3])
            raise HintedError(
                f"{len(missing)} of {self._tracker.progress().planned} proofs have no label because"
                f" one of their messages is a dead letter: {some}",
                f"`proofloop dead list --run {self._spec.name}` shows the reasons; `--resume` tries"
                " them again",
            )
