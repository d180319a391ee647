"""The shared parts of all stages: the curriculum, its store and problems, its runs, the console."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import RunSpec
from proofloop.curriculum import watch
from proofloop.curriculum.cases import CaseFile
from proofloop.curriculum.sources import Sources
from proofloop.curriculum.status import add_run
from proofloop.errors import HintedError, Interrupted
from proofloop.method.prompts import PromptPack
from proofloop.pipeline.driver import Report
from proofloop.runs.create import create_run
from proofloop.runs.given import keep_portion
from proofloop.runs.model_registry import newest_step, published_versions
from proofloop.runs.planned import is_fine_tuned, supervised_steps
from proofloop.runs.progress import RunProgress
from proofloop.runs.spec import find_spec, keep_change
from proofloop.schema import keys
from proofloop.schema.given import GivenCase
from proofloop.schema.records import ALL_ROLES, TrainingStep, derive_seed
from proofloop.store import Store, find_record, get_record, put_record
from proofloop.store.lease import Lease

EVERY_S = 10.0
"""How often a run without training steps reports its progress."""

Drive = Callable[[RunSpec, Report], RunProgress]
"""Drives a run that the store has to its end. Safe to repeat."""


@dataclass(frozen=True)
class Work:
    """The surroundings of a stage. `say` prints a line on the console."""

    spec: CurriculumSpec
    store: Store
    sources: Sources
    pack: PromptPack
    drive: Drive
    lease: Lease
    stopping: threading.Event
    say: Callable[[str], None]

    def rng(self, *purpose: object) -> random.Random:
        return random.Random(derive_seed(self.spec.seed, *purpose))

    def check(self) -> None:
        """Raise if a stop was requested, or the lease was lost."""
        self.lease.check()
        if self.stopping.is_set():
            raise Interrupted("asked to stop")

    def once(self, name: str, draw: Callable[[], CaseFile]) -> CaseFile:
        """The data set of that name: drawn once, then read."""
        key = keys.cases(self.spec.name, name)
        found = find_record(self.store, key, CaseFile)
        return found or put_record(self.store, key, draw(), durable=True)

    def finish(self, run: RunSpec, cases: Sequence[GivenCase] = ()) -> str:
        """Take a run to its end and return its name. Safe to repeat: stored answers are kept."""
        self._create(run, 0, cases)
        self.drive(run, SamplingReport(self, run))
        return run.name

    def train(self, run: RunSpec, portion: int, cases: Sequence[GivenCase]) -> None:
        """Take the steps that this portion of a training run's cases allows, unless they were taken
        before: the store then has a later portion, or all steps.
        """
        if self.store.exists(keys.given_portion(run.name, portion + 1)):
            return
        self._create(run, portion, cases)
        report = TrainingReport(self, run)
        report.check()  # a stopped stage stays stopped
        if not report.is_done:
            self.drive(run, report)

    def version(self, run: RunSpec, name: str) -> str:
        """The last version of a training run. `name`: the role, or "all"."""
        versions = published_versions(self.store, run.name, name)
        if not versions:
            raise HintedError(
                f"run {run.name} has ended, and its trainer has published no version",
                f"see `proofloop dead list --run {run.name}`, then run the command again",
            )
        return versions[-1]

    def last_step(self, run: RunSpec) -> TrainingStep:
        """The record of the last step of a supervised run."""
        number = supervised_steps(self.store, run.name)
        return get_record(self.store, keys.step(run.name, ALL_ROLES, number), TrainingStep)

    def short_name(self, run: RunSpec) -> str:
        """The run's name without the curriculum's."""
        return run.name.removeprefix(f"{self.spec.name}-")

    def _create(self, run: RunSpec, portion: int, cases: Sequence[GivenCase]) -> None:
        self.check()
        if run.training.roles and not cases:
            raise HintedError(
                f"run {run.name} has no cases to learn from",
                "raise the sizes in [data], or give more rows in [files]",
            )
        if run.fine_tuning:
            self._change_settings(run)
        add_run(self.store, self.spec.name, run.name)
        if cases:
            keep_portion(self.store, run.name, portion, cases)
        create_run(self.store, run, resume=True, pack=self.pack)

    def _change_settings(self, run: RunSpec) -> None:
        """Let a supervised run take other settings while it has no model: they decide nothing
        yet.
        """
        if find_spec(self.store, run.name) and not is_fine_tuned(self.store, run):
            keep_change(self.store, run)


class Countdown:
    """Progress as text: `3/20, about 12 s left`, by the pace since this object was made.

    The time left is omitted until a twentieth, or 32, are done: when many run at once, the first
    ones say nothing about the pace.
    """

    def __init__(self, done: int = 0) -> None:
        self._first, self._began = done, time.monotonic()

    def at(self, done: int, total: int) -> str:
        taken, left = done - self._first, total - done
        if left <= 0 or taken < min(32, max(1, (total - self._first) / 20)):
            return f"{done}/{total}"
        seconds = (time.monotonic() - self._began) / taken * left
        return f"{done}/{total}, about {seconds:.0f} s left"


class SamplingReport:
    """Prints the number of a run's finished proofs, or supervised steps, now and then."""

    def __init__(self, work: Work, run: RunSpec) -> None:
        self._work, self._run, self._stage = work, run, work.short_name(run)
        self._said, self._text = time.monotonic(), ""
        self._countdown: Countdown | None = None

    def __call__(self, progress: RunProgress) -> None:
        tuning = self._run.fine_tuning
        done = progress.steps.get(ALL_ROLES, 0) if tuning else progress.labeled
        total = tuning.steps if tuning else progress.planned
        if self._countdown is None:  # a resumed run has done some before
            self._countdown = Countdown(done)
        if time.monotonic() - self._said > EVERY_S:
            self._said = time.monotonic()
            shown = self._countdown.at(done, total) if total else f"{done}"
            self._say(f"supervised step {shown}" if tuning else f"proofs done: {shown}")

    def _say(self, text: str) -> None:
        """Print a text that differs from the last one."""
        if text != self._text:
            self._text = text
            self._work.say(f"{self._stage}: {text}")


class TrainingReport:
    """Prints each training step of a run, and stops the stage if the watch finds something."""

    def __init__(self, work: Work, run: RunSpec) -> None:
        self._work, self._run = work, run
        [self._role] = run.training.roles
        self._wanted = run.training.of(self._role)
        self._stage = work.short_name(run)
        self._steps: list[TrainingStep] = []
        self._read(newest_step(work.store, run.name, self._role))
        self._countdown = Countdown(len(self._steps))

    def __call__(self, progress: RunProgress) -> None:
        for step in self._read(progress.steps.get(self._role, 0)):
            done = self._countdown.at(step.step, self._wanted.steps)
            self._work.say(f"{self._stage}: step {done}, {self._figures(step.figures)}")
            self.check()

    @property
    def is_done(self) -> bool:
        return len(self._steps) >= self._wanted.steps

    def check(self) -> None:
        watch.check(self._stage, [step.figures for step in self._steps], self._work.spec.watch)

    def _read(self, taken: int) -> list[TrainingStep]:
        """The steps that were taken since the last time."""
        numbers = range(len(self._steps) + 1, taken + 1)
        listed = (keys.step(self._run.name, self._role, number) for number in numbers)
        new = [get_record(self._work.store, key, TrainingStep) for key in listed]
        self._steps += new
        return new

    def _figures(self, figures: watch.Figures) -> str:
        """The main figures in one line; `proofloop runs steps` prints all."""
        pulled = f", KL {figures['kl']:.4f}" if figures.get("kl") else ""
        length = figures["completion_length"]
        return f"reward {figures['mean_reward']:.3f}{pulled}, length {length:.0f}"
