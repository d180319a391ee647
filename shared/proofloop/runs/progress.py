"""The posed proofs of a run, their results, and the proofs that may be posed next.

The run driver keeps one `ProgressTracker`; it is the same in one process and on services.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from proofloop.config.run_file import RunSpec
from proofloop.runs.flow import critiques_at_once
from proofloop.runs.search.driver import SearchDriver
from proofloop.runs.search.needs import Needs
from proofloop.schema.events import ProblemPosed
from proofloop.schema.records import LabelOutcome
from proofloop.store import Store

OUTLOOK_S = 1.0
"""How often the searches' outlook is computed: it looks at every problem."""

RATE_S = 30.0
"""The window over which the rate of tokens is measured."""


@dataclass(frozen=True)
class RunProgress:
    """The counts of a run at one moment.

    `planned`: the requested proofs so far. Searches may request more: `expected` estimates the
    total and `most` limits it; both are 0 without a search. `stored`: labels that were in the store
    before their proofs were posed. `calls`: calls in flight by role. `tokens` and `answered` count
    this process, or the services since the run was resumed. `most_calls`: the limit for one proof.
    `money`: the cost of the run so far, None without prices.
    """

    planned: int
    labeled: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    stored: int = 0
    searches: int = 0
    searches_ended: int = 0
    expected: int = 0
    most: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    most_calls: int = 0
    tokens: int = 0
    money: float | None = None


class Rate:
    """The rate at which a count grew in the last `window_s` seconds."""

    def __init__(self, window_s: float = RATE_S) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def per_second(self, count: int) -> float:
        """The growth a second; `count` is the total so far."""
        now = time.monotonic()
        samples = self._samples
        if not samples or now - samples[-1][0] >= 1 or count < samples[-1][1]:
            samples.append((now, count))
        while len(samples) > 2 and now - samples[0][0] > self._window_s:
            samples.popleft()
        began, before = samples[0]
        return max(0, count - before) / (now - began) if now - began >= 1 else 0.0


class ProgressTracker:
    """Counts the posed, labeled and stuck proofs of a run. `add_label`, `add_dead`, `add_answer`
    and `add_steps` may be called by any thread; the rest belongs to the thread that poses proofs.

    A proof is open from its posing to its label; it is stuck once one of its messages is a dead
    letter. A label counts once, however often it is announced, and counts for a stuck proof too.
    """

    def __init__(self, spec: RunSpec, store: Store, planned: int, steps: dict[str, int]) -> None:
        self._spec = spec
        self._training = spec.training
        self._search = SearchDriver(spec, store)
        self._lock = threading.Condition()
        """Notified when a proof is no longer open."""
        self._open: set[str] = set()
        self._stuck: set[str] = set()
        self._progress = RunProgress(planned=planned, steps=steps)
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        """Calls that tell the search what happened, made by the posing thread."""
        self._has_news = threading.Event()
        self._refinements: deque[ProblemPosed] = deque()
        self._problems_without_step = 0
        self._outlook = self._search.outlook(planned)
        self._outlook_s = time.monotonic()

    def add_posed(self, proof_id: str, event: ProblemPosed | None = None) -> None:
        """Count a proof as posed, by that event if the generator writes it."""
        if event is not None:
            self._search.add_posed(event)
        with self._lock:
            self._open.add(proof_id)

    def add_label(
        self, proof_id: str, outcome: LabelOutcome, *, solved: bool, was_stored: bool = False
    ) -> bool:
        """Count a label; true if its proof was open until now.

        `was_stored`: the label was in the store before its proof was posed.
        """
        with self._lock:
            is_open = proof_id in self._open
            if not is_open and proof_id not in self._stuck:
                return False
            self._open.discard(proof_id)
            self._stuck.discard(proof_id)
            before = self._progress
            self._progress = replace(
                before,
                labeled=before.labeled + 1,
                outcomes={**before.outcomes, outcome: before.outcomes.get(outcome, 0) + 1},
                stored=before.stored + was_stored,
            )
            self._lock.notify_all()
        self._tell(partial(self._search.add_label, proof_id, outcome, solved=solved))
        return is_open

    def add_dead(self, proof_id: str) -> bool:
        """Count a dead letter of this proof: its label is not waited for. True if it was open."""
        with self._lock:
            if proof_id not in self._open:
                return False
            self._open.remove(proof_id)
            self._stuck.add(proof_id)
            self._lock.notify_all()
        self._tell(partial(self._search.add_dead, proof_id))
        return True

    def add_answer(self, key: str) -> None:
        """An answer was stored under this key."""
        if self._spec.searches_by_need:
            self._tell(partial(self._search.needs.add_answer, key))

    def _tell(self, news: Callable[[], None]) -> None:
        self._news.put(news)
        self._has_news.set()

    def add_steps(self, steps: dict[str, int]) -> bool:
        """Set the number of steps of these roles; true if one changed."""
        with self._lock:
            before = self._progress.steps
            self._progress = replace(self._progress, steps={**before, **steps})
            return self._progress.steps != before

    @property
    def steps(self) -> dict[str, int]:
        """The number of steps of each role in training."""
        return self._progress.steps

    def may_pose(self, problem: int) -> bool:
        """Whether the problem of that number is not too far ahead of the trainer."""
        allowed = self._training.problems_allowed(self._progress.steps)
        return allowed is None or problem < allowed + self._problems_without_step

    def expect_no_step(self) -> None:
        """Allow the problems of one more step, because the present labels lead to no step."""
        self._problems_without_step += self._training.problems

    def next_refinement(self) -> ProblemPosed | None:
        """The next proof that a search requests; None if there is none now. After an error of the
        store it may be called again.
        """
        while True:
            self._tell_search()
            if not self._refinements:
                self._refinements.extend(self._search.next_round())
                if not self._refinements:
                    return None
                self._plan(len(self._refinements))
            is_wanted = self._search.is_wanted(self._refinements[0])
            event = self._refinements.popleft()
            if is_wanted:
                return event
            self._plan(-1)

    def _tell_search(self) -> None:
        while not self._news.empty():
            self._news.get()()

    def search_needs(self, running: int) -> Needs:
        """The needs of the searches, with `running` calls of the verifier in flight.

        After an error of the store it may be called again.
        """
        if not self._spec.searches_by_need:
            return Needs()
        self._tell_search()
        return self._search.needs.find(critiques_at_once(self._spec, running))

    def look_for_answers(self) -> None:
        """Look in the store for the answers that the searches need."""
        if self._spec.searches_by_need:
            self._search.needs.look()

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until a proof changes, at most for `timeout_s`."""
        self._has_news.wait(timeout_s)
        self._has_news.clear()

    def _plan(self, more: int) -> None:
        with self._lock:
            self._progress = replace(self._progress, planned=self._progress.planned + more)

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def num_in_work(self) -> int:
        """The open proofs that wait for an answer, and not only for other proofs of their
        search.
        """
        return len(self._open) - self._search.num_complete

    def wait_for_room(self, most: int, timeout_s: float) -> None:
        """Wait until fewer than `most` proofs are open, at most for `timeout_s`."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._open) < most, timeout_s)

    @property
    def without_label(self) -> set[str]:
        """The posed proofs without a label, stuck ones too."""
        with self._lock:
            return self._open | self._stuck

    def progress(self, *, at_end: bool = False) -> RunProgress:
        """The present counts. `at_end` computes the searches' outlook anew."""
        with self._lock:
            now = replace(self._progress, waiting=len(self._open) + len(self._stuck))
        now = replace(now, most_calls=self._spec.most_calls_per_proof)
        if not self._spec.search.rounds:
            return now
        if at_end or time.monotonic() - self._outlook_s > OUTLOOK_S:
            self._outlook = self._search.outlook(now.planned)
            self._outlook_s = time.monotonic()
        return replace(
            now,
            searches=self._outlook.searches,
            searches_ended=self._outlook.ended,
            expected=self._outlook.expected,
            most=self._outlook.most,
        )
