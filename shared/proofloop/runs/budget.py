"""The limits of [budget] on a run's tokens, money and hours, over all its resumes.

In one process a message that needs a model call is handled only while the running calls leave room
for it. Once the budget is used up such messages are dropped: `--resume` poses every proof without a
label again, and handlers find the stored answers. On services the run writes a mark into the store,
and the services drop the run's messages.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from proofloop.config.run_file import Budget, RunSpec
from proofloop.errors import BudgetUsedUp, StoreError
from proofloop.runs.costs import HOUR_S, ByRole, Spent, money_of, summed
from proofloop.schema import keys
from proofloop.schema.events import Event, ProblemPosed, ProofReviewed, ProofWritten
from proofloop.schema.records import MODEL_ROLES, ModelRole, Record
from proofloop.store import Store
from proofloop.store.renewed import Renewed, newest

ROOM_S = 0.2
"""How often a message that waits for room looks whether there is some, should nothing wake it."""

MARK_S = 2.0
"""How long a service may go on after the mark was written or removed."""

MINUTE_S = 60.0
"""How often the time that a run has taken is written."""

ASKING = (ProblemPosed, ProofWritten, ProofReviewed)
"""The events that make a role ask a model."""


NOTHING: ByRole = {}


class MessageGate(Protocol):
    """Decides whether a message is handled or dropped."""

    def message(self, event: Event, role: str) -> AbstractContextManager[bool]:
        """Whether to handle the message in this block; otherwise it is dropped."""
        ...


class OpenGate:
    """Lets everything through."""

    @contextmanager
    def message(self, event: Event, role: str) -> Iterator[bool]:
        yield True


class MarkGate:
    """Drops the messages of runs that have the mark: their budget is used up. For services."""

    def __init__(self, store: Store, spec_of: Callable[[str], RunSpec]) -> None:
        self._store, self._spec_of = store, spec_of
        self._seen: dict[str, tuple[float, bool]] = {}

    @contextmanager
    def message(self, event: Event, role: str) -> Iterator[bool]:
        yield not (isinstance(event, ASKING) and self._is_marked(event.run_id))

    def _is_marked(self, run_id: str) -> bool:
        if self._spec_of(run_id).budget == Budget():
            return False
        asked_s, is_marked = self._seen.get(run_id, (float("-inf"), False))
        now = time.monotonic()  # before the store is asked: its answer is as old as the question
        if now - asked_s > MARK_S:
            is_marked = self._store.exists(keys.budget_mark(run_id))
            self._seen[run_id] = now, is_marked
        return is_marked


class BudgetMark(Record):
    """The mark in the store while a run's budget is used up."""

    reason: str


class Meter:
    """A run's use of its budget. `used` returns the cost of its calls by role."""

    def __init__(self, spec: RunSpec, used: Callable[[], ByRole], seconds: Callable[[], float]):
        self._spec, self._seconds = spec, seconds
        self.used = used

    @property
    def money(self) -> float:
        return money_of(self._spec.prices, self.used())

    def over(self, more: ByRole = NOTHING) -> str:
        """The first limit that is reached once `more` is spent too; empty if none is."""
        budget = self._spec.budget
        if budget == Budget():
            return ""
        spent = summed(self.used(), more)
        if budget.tokens is not None and _tokens(spent) >= budget.tokens:
            return f"tokens = {budget.tokens}"
        if budget.money is not None and money_of(self._spec.prices, spent) >= budget.money:
            return f"money = {budget.money:g}"
        if budget.hours is not None and self._seconds() >= budget.hours * HOUR_S:
            return f"hours = {budget.hours:g}"
        return ""

    def expected(self, running: Mapping[ModelRole, int]) -> ByRole:
        """The expected cost of so many messages of each role: a mean call each. Before the first
        answer it is a call that reaches max_tokens.
        """
        used = self.used()
        return {
            role: self._expected(role, count, used.get(role, Spent()))
            for role, count in running.items()
        }

    def _expected(self, role: ModelRole, messages: int, so_far: Spent) -> Spent:
        calls = messages * (self._spec.labeling.most_metas if role == "meta_verifier" else 1)
        mean = so_far.over(int(so_far.calls)) or Spent(
            1, 0, self._spec.sampling_of(role).max_tokens
        )
        return Spent(
            calls,
            calls * mean.prompt_tokens,
            calls * mean.completion_tokens,
            calls * mean.engine_seconds,
        )

    def used_up(self, labeled: int, planned: int, running: int = 0) -> BudgetUsedUp:
        """The end of the run, in words."""
        limit = self.over()
        parts = [f"{_tokens(self.used()):,.0f} tokens", f"{self._seconds() / HOUR_S:.2f} hours"]
        if self._spec.budget.money is not None:
            parts.insert(1, f"{self.money:,.2f} of money")
        going_on = (
            f"; {running} calls that run end in the services, and are kept" if running else ""
        )
        return BudgetUsedUp(
            f"{self._spec.name}: [budget] {limit} is used up, after {', '.join(parts)}: {labeled}"
            f" of {planned} proofs"
            f" have a label, {planned - labeled} are missing{going_on}",
            "raise [budget] in the file, then `run` it with --resume, or `prove` again: nothing"
            " stored is paid again",
        )


def _tokens(by_role: ByRole) -> float:
    return sum(of.prompt_tokens + of.completion_tokens for of in by_role.values())


class BudgetGate:
    """For one run in one process: lets a message through while there is room, drops it once the
    budget is used up.
    """

    def __init__(self, meter: Meter, stopping: threading.Event) -> None:
        self._meter, self._stopping = meter, stopping
        self._changed = threading.Condition()
        self._running: Counter[ModelRole] = Counter()
        self._waiting: Counter[ModelRole] = Counter()
        self.has_dropped = False
        """Whether a message was dropped because the budget is used up."""

    @contextmanager
    def message(self, event: Event, role: str) -> Iterator[bool]:
        asking = next((each for each in MODEL_ROLES if each == role), None)
        if asking is None or not isinstance(event, ASKING):
            yield True
            return
        if not self._enter(asking):
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._running[asking] -= 1
                self._changed.notify_all()

    def _enter(self, role: ModelRole) -> bool:
        """Wait until there is room; false once the budget is used up, or the run is stopped."""
        with self._changed:
            self._waiting[role] += 1
            try:
                while not self._stopping.is_set() and not self._meter.over():
                    if self._has_room(role):
                        self._running[role] += 1
                        return True
                    self._changed.wait(ROOM_S)
                self.has_dropped |= not self._stopping.is_set()
            finally:
                self._waiting[role] -= 1
        return False

    def _has_room(self, role: ModelRole) -> bool:
        """Whether there is room. A later role of the pipeline goes first: started proofs get labels
        before new ones start.
        """
        later = MODEL_ROLES[MODEL_ROLES.index(role) + 1 :]
        if any(self._waiting[each] for each in later):
            return False
        wanted = self._running + Counter([role])
        return not self._running.total() or not self._meter.over(self._meter.expected(wanted))


class TimeTaken(Record):
    """The time that one process has worked on a run."""

    seconds: float


class RunClock:
    """The working time of a run, of this process and earlier ones; written every minute."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._own = Renewed(store, keys.times(run_id), "time", kept=1)
        self._began, self._due_s = time.monotonic(), MINUTE_S
        self._before = sum(each.seconds for _, each in newest(store, keys.times(run_id), TimeTaken))

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def keep(self, *, now: bool = False) -> None:
        """Write the time if a minute has passed, or at once. After an error of the store it is
        written the next time.
        """
        seconds = time.monotonic() - self._began
        if not now and seconds < self._due_s:
            return
        with suppress(StoreError):
            self._own.write(TimeTaken(seconds=seconds))
            self._due_s += MINUTE_S
