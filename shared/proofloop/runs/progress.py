"""What a run has posed, what became of it, and what may be posed next; whether its roles are
threads or services.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace

from proofloop.config.run_file import RunSpec
from proofloop.runs.search_driver import Rounds
from proofloop.schema.events import ProblemPosed
from proofloop.store import Store

OUTLOOK_S = 1.0
"""How often the searches' outlook is worked out anew: it looks at every problem."""


@dataclass(frozen=True)
class Progress:
    """True counts of a running walk.

    `planned`: the proofs that are asked for by now. Searches may ask for more: `expected` is an
      estimate of all, `most` their limit, both 0 without a search. `stored` of the labels lay in
      the store as they were posed. `calls` are in flight, by role; `tokens` and `answered` count
      this process, or the services since it began; `most_calls` is the limit for a proof. `money`:
      what the run cost so far, None without prices.
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


class Ledger:
    """Any thread may tell what happened; one poses: it alone calls what says "the poser".

    A proof is open from when it is posed until its label is seen, or stuck once a message of it
    died. A label counts once, however often it is announced, and also when it comes after all for a
    stuck proof.
    """

    def __init__(self, spec: RunSpec, store: Store, planned: int, steps: dict[str, int]) -> None:
        self._spec, self._training, self._rounds = spec, spec.training, Rounds(spec, store)
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._stuck: set[str] = set()
        self._progress = Progress(planned=planned, steps=steps)
        self._done: queue.SimpleQueue[tuple[str, bool]] = (
            queue.SimpleQueue()
        )  # proofs, whether solved, for the poser
        self._asked: deque[ProblemPosed] = deque()
        self._more = 0
        self._outlook, self._looked_ahead_s = self._rounds.outlook(planned), time.monotonic()

    def posed(self, event: ProblemPosed) -> None:
        """The poser: this proof is open from now on."""
        self._rounds.posed(event)
        with self._lock:
            self._open.add(event.proof_id)

    def labelled(
        self, proof_id: str, outcome: str, *, solved: bool, was_stored: bool = False
    ) -> bool:
        """A label was seen, that `was_stored` before its proof was posed; whether the proof was
        open until now.
        """
        with self._lock:
            is_open, is_stuck = proof_id in self._open, proof_id in self._stuck
            if not is_open and not is_stuck:
                return False
            self._open.discard(proof_id)
            self._stuck.discard(proof_id)
            outcomes = {
                **self._progress.outcomes,
                outcome: self._progress.outcomes.get(outcome, 0) + 1,
            }
            self._progress = replace(
                self._progress,
                labeled=self._progress.labeled + 1,
                outcomes=outcomes,
                stored=self._progress.stored + was_stored,
            )
        self._done.put((proof_id, solved))
        return is_open

    def died(self, proof_id: str) -> bool:
        """A message of this proof is dead: nobody waits for its label any more; whether it was open
        until now.
        """
        with self._lock:
            if proof_id not in self._open:
                return False
            self._open.remove(proof_id)
            self._stuck.add(proof_id)
        self._done.put((proof_id, False))
        return True

    def stepped(self, steps: dict[str, int]) -> bool:
        """How many steps these roles have taken by now; whether that is news."""
        with self._lock:
            before = self._progress.steps
            self._progress = replace(self._progress, steps={**before, **steps})
            return self._progress.steps != before

    def may_pose(self, problem: int) -> bool:
        """Whether the problem of that number is not too far ahead of the trainer."""
        allowed = self._training.problems_allowed(self._progress.steps)
        return allowed is None or problem < allowed + self._more

    def expect_no_step(self) -> None:
        """The poser: the labels that there are lead to no step; a step's worth of problems more may
        be posed.
        """
        self._more += self._training.problems

    def refinement(self) -> ProblemPosed | None:
        """The poser: what the searches ask for next; None: nothing by now. After an error of the
        store ask again.
        """
        while True:
            self._take_labels()
            if not self._asked:
                self._asked.extend(self._rounds.next_round())
                if not self._asked:
                    return None
                self._plan(len(self._asked))
            is_wanted = self._rounds.is_wanted(self._asked[0])
            event = self._asked.popleft()
            if is_wanted:
                return event
            self._plan(-1)

    def _take_labels(self) -> None:
        while not self._done.empty():
            name, is_solved = self._done.get()
            self._rounds.labelled(name, solved=is_solved)

    def _plan(self, more: int) -> None:
        with self._lock:
            self._progress = replace(self._progress, planned=self._progress.planned + more)

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> set[str]:
        """The proofs without a label, stuck ones too."""
        with self._lock:
            return self._open | self._stuck

    def progress(self, *, at_end: bool = False) -> Progress:
        """The poser: the counts by now, with an outlook on the searches, at the end of the run a
        new one.
        """
        with self._lock:
            now = replace(self._progress, waiting=len(self._open) + len(self._stuck))
        now = replace(now, most_calls=self._spec.most_calls_per_proof)
        if not self._spec.search.rounds:
            return now
        if at_end or time.monotonic() - self._looked_ahead_s > OUTLOOK_S:
            self._outlook, self._looked_ahead_s = (
                self._rounds.outlook(now.planned),
                time.monotonic(),
            )
        ahead = self._outlook
        return replace(
            now,
            searches=ahead.searches,
            searches_ended=ahead.ended,
            expected=ahead.expected,
            most=ahead.most,
        )
