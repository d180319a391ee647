"""The progress line of a run: proofs done, outcomes, calls in flight, tokens a second, cost, time
left.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from proofloop.runs.progress import Rate, RunProgress
from proofloop.schema.records import ALL_ROLES
from proofloop.typeset.printable import printable

ENOUGH_PROOFS = 10
"""The fewest finished proofs from which the time left is estimated."""

ENOUGH_CALLS, FEWEST_CALLS = 20, 5
"""So many answered calls are enough for an upper limit of the time left; fewer if only few calls
run at a time, because a long answer may take an hour.
"""

PLAIN_INTERVAL_S = 15.0
"""The time between two progress lines if stderr is not a terminal."""


class ProgressLine:
    """One line for each stage: proofs done and planned, outcomes, calls in flight, tokens a second,
    cost, time left.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._stage = ""
        self._began = 0.0
        self._tokens = Rate()
        self._last_news: tuple[bool, dict[str, int], float | None] | None = None
        self._due = 0.0

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, stage: str, progress: RunProgress) -> None:
        """Redraw the line; without a terminal, print it every PLAIN_INTERVAL_S."""
        if stage != self._stage:
            self._stage = stage
            self._began = time.monotonic()
            self._tokens = Rate()
            self._last_news = None
            self._due = 0.0
        line = f"{stage}: {self._describe(progress)}"
        if self._console.is_terminal:
            self._live.update(Text(line))
        elif self._is_due(progress):
            print(line, file=sys.stderr, flush=True)

    def _is_due(self, progress: RunProgress) -> bool:
        """Whether to print a line now. After the last label, only a new training step, the end of
        the searches and the last calls' cost are news.
        """
        is_labeled = progress.labeled >= progress.planned
        news = (self._is_done(progress), dict(progress.steps), progress.money)
        last_news = news if is_labeled else None
        now = time.monotonic()
        if last_news == self._last_news and (is_labeled or now < self._due):
            return False
        self._last_news = last_news
        self._due = now + PLAIN_INTERVAL_S
        return True

    def wait(self, what: str) -> None:
        """On a terminal, show what the command waits for before the first progress."""
        self._live.update(Text(what))

    def print(self, text: str) -> None:
        """Print a line above the progress line."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _describe(self, progress: RunProgress) -> str:
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
        proofs = f"{progress.labeled}/{progress.planned} proofs done ({outcomes or 'none yet'})"
        parts = [proofs] if progress.planned else []
        if progress.searches:
            parts.append(f"{progress.searches_ended}/{progress.searches} searches ended")
        parts += [
            f"{'supervised' if role == ALL_ROLES else role} step {step}"
            for role, step in sorted(progress.steps.items())
        ]
        is_done = self._is_done(progress)
        if progress.calls and not is_done:
            calls = ", ".join(f"{role} {count}" for role, count in sorted(progress.calls.items()))
            parts.append(f"calls in flight: {calls}")
        if (rate := self._tokens.per_second(progress.tokens)) and not is_done:
            parts.append(f"{rate:,.0f} tokens/s")
        if progress.money is not None:
            parts.append(f"cost so far {progress.money:,.2f}")
        return "; ".join([*parts, self._time_left(progress)])

    def _is_done(self, progress: RunProgress) -> bool:
        """Whether all proofs are labeled and all searches have ended.

        Calls are counted only now and then, so the last count may be out of date.
        """
        return progress.labeled >= progress.planned and progress.searches_ended >= progress.searches

    def _time_left(self, progress: RunProgress) -> str:
        elapsed = time.monotonic() - self._began
        done = progress.labeled - progress.stored
        if self._is_done(progress):
            return f"took {elapsed:.0f} s"
        expected = max(progress.planned, progress.expected)
        most = max(progress.planned, progress.most)
        if done >= ENOUGH_PROOFS and elapsed >= 2:
            left = f"about {span(elapsed / done * (expected - progress.labeled))} left"
            limit = span(elapsed / done * (most - progress.labeled))
            return f"{left}, at most {limit}" if most > expected else left
        calls = (most - progress.stored) * progress.most_calls
        enough = min(ENOUGH_CALLS, max(FEWEST_CALLS, 2 * sum(progress.calls.values())))
        if progress.answered >= enough and elapsed >= 2 and calls > progress.answered:
            return f"at most {span(elapsed / progress.answered * (calls - progress.answered))} left"
        return "time left: not known yet"


def span(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"
