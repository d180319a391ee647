"""The trainer's handler: collects complete groups, takes a GRPO step when it has enough, and
publishes the new version.

A step's batch is stored before the step and names the problems that it uses up; the model is
published after the step (`steps`). If the trainer is killed in between, it finds the batch without
its model and repeats the step.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.runs.labels import in_force, labels_of
from proofloop.runs.model_registry import (
    MANIFEST,
    manifest_digest,
    published_versions,
    version_folder,
)
from proofloop.schema import keys
from proofloop.schema.events import Event, ModelPublished, ProofLabeled
from proofloop.schema.records import Label, ModelRole, Record, TrainingBatch
from proofloop.store import get_record, put_record
from proofloop.worker.tools import Tools
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings, grpo_settings
from proofloop_trainer.samples import Group, choose_groups, groups_of, mean_parts
from proofloop_trainer.steps import drop_older, open_learner, take_step

log = structlog.get_logger()


class Trainer:
    """The trainer of one process. It handles one message at a time: run it with concurrency 1."""

    def __init__(self) -> None:
        self._runs: dict[str, RunInTraining] = {}

    def train(self, event: ProofLabeled, tools: Tools) -> Iterator[Event]:
        """Count the label and take all steps that are due. A redelivered label announces the same
        versions again.
        """
        run = self._runs.get(event.run_id)
        if run is None:
            run = RunInTraining(event.run_id, tools)
            run.announced[event.proof_id] = [
                learning.announcement(learning.steps) for learning in run.roles if learning.steps
            ]
            self._runs[event.run_id] = run
        yield from run.announced.get(event.proof_id, ())
        label = get_record(tools.store, keys.label(event.run_id, event.proof_id), Label)
        run.uncounted.append(in_force(tools.store, label))
        while run.uncounted:  # in order: a role's first problems depend on the steps taken by then
            run.add(run.uncounted[0])
            for learning in run.roles:
                while (batch := learning.next_batch()) is not None:
                    published = learning.take_step(batch)
                    run.announced.setdefault(event.proof_id, []).append(published)
                    yield published
            run.uncounted.popleft()


class RunInTraining:
    """The trainer's state of a run: the labels of incomplete problems, and the roles in
    training.
    """

    def __init__(self, run_id: str, tools: Tools) -> None:
        self._spec = tools.runs.spec(run_id)
        self._store = tools.store
        self._incomplete: dict[str, dict[str, Label]] = defaultdict(dict)
        self._complete: set[str] = set()
        self.roles = [RoleInTraining(run_id, role, tools) for role in self._spec.training.roles]
        self.announced: dict[str, list[ModelPublished]] = {}
        """The versions that a proof's label led to, by proof: one for each step."""
        self.uncounted = deque(labels_of(self._store, run_id))
        """Labels that are not counted yet; first those in the store, which an earlier trainer
        received.
        """

    def add(self, label: Label) -> None:
        """Count a label. Once all proofs of a problem are labeled, offer the problem to all
        roles.
        """
        if label.group in self._complete:
            return
        group = self._incomplete[label.group]
        group[label.proof_id] = label
        if len(group) == self._spec.problems.proofs_per_problem:
            labels = sorted(group.values(), key=lambda label: label.proof_id)
            steps = {learning.role: learning.steps for learning in self.roles}
            for learning in self.roles:
                others = [taken for role, taken in steps.items() if role != learning.role]
                learning.offer(label.group, labels, sum(others))
            self._complete.add(label.group)  # last, so that a store error above repeats the offers
            del self._incomplete[label.group]


class _Problems(Record):
    """The problems that a batch used up. Reads only this field: the tokens of all batches would
    fill the memory.
    """

    problems: tuple[str, ...]


class RoleInTraining:
    """One role in training: its model, the labeled problems that wait for the next step, and the
    steps taken.
    """

    def __init__(self, run_id: str, role: ModelRole, tools: Tools) -> None:
        self.role = role
        self._run_id = run_id
        self._tools = tools
        self._store = tools.store
        self._spec = tools.runs.spec(run_id)
        self._wanted = self._spec.training.of(role)
        self._settings = role_settings(self._spec, role)
        self._waiting: dict[str, list[Label]] = {}
        batches = [
            get_record(self._store, key, _Problems)
            for key in self._store.list(keys.batches(run_id, role))
        ]
        skipped = self._store.list(keys.skipped_problems(run_id, role))
        self._used = {problem for batch in batches for problem in batch.problems}
        self._begun = len(batches)
        self._used |= {keys.name_of(key) for key in skipped}
        self.steps = len(published_versions(self._store, run_id, role))
        # A killed trainer may have left older checkpoints.
        drop_older(self._store, keys.checkpoint(run_id, role, self.steps))
        self._learner: GrpoLearner | None = None

    def offer(self, problem: str, labels: list[Label], steps_of_others: int) -> None:
        """Accept a complete problem once, unless the training is over. Before `begin`, it is
        skipped for good.
        """
        if self.steps >= self._wanted.steps or problem in self._used:
            return
        if self._wanted.begin <= steps_of_others:
            self._waiting[problem] = labels
        else:
            self._skip(problem)

    def _skip(self, *problems: str) -> None:
        """Mark problems as skipped in the store, so that a restarted trainer skips them too."""
        for problem in problems:
            self._store.put_if_absent(
                keys.skipped_problem(self._run_id, self.role, problem), b"{}", durable=True
            )
        self._used.update(problems)

    def next_batch(self) -> TrainingBatch | None:
        """The batch of the next step: a stored one whose step is not done, or a new one if enough
        problems wait.
        """
        if self.steps >= self._wanted.steps:
            return None
        key = keys.batch(self._run_id, self.role, self.steps)
        if self.steps < self._begun:
            return get_record(self._store, key, TrainingBatch)
        if len(self._waiting) < self._spec.training.problems:
            return None
        problems = tuple(self._waiting)[: self._spec.training.problems]
        batch = self._batch(problems, [self._waiting[problem] for problem in problems])
        if batch.samples:
            batch = put_record(self._store, key, batch, durable=True)
            self._begun += 1
            self._used.update(problems)
        else:
            self._skip(*problems)
        for problem in problems:  # last, so that they still wait after a store error above
            del self._waiting[problem]
        if not batch.samples:
            log.warning("nothing_to_learn", role=self.role, problems=problems)
            return None
        return batch

    def _batch(self, problems: tuple[str, ...], labels: list[list[Label]]) -> TrainingBatch:
        groups: list[Group] = []
        for of_problem in labels:
            # A person may have graded since.
            current = [in_force(self._store, label) for label in of_problem]
            groups += groups_of(self.role, current, self._spec, self._store)
        everything = [sample for group in groups for sample in group.samples]
        fresh = self._fresh(groups)
        # If no group has a signal, the step changes nothing.
        chosen = choose_groups(fresh, self._wanted.groups) or fresh[:1]
        return TrainingBatch(
            run_id=self._run_id,
            role=self.role,
            step=self.steps,
            problems=problems,
            mean_reward=fmean(sample.reward for sample in everything) if everything else 0.0,
            reward_parts=mean_parts(everything),
            samples=tuple(sample for group in chosen for sample in group.samples),
        )

    def _fresh(self, groups: list[Group]) -> list[Group]:
        """Leave out the groups that have an answer of a model older than `max_staleness` steps."""
        most = self._settings.max_staleness
        if most is None:
            return groups
        made_at = {
            keys.model(self._run_id, self.role, step): step for step in range(1, self.steps + 1)
        }
        ages = [
            max(self.steps - made_at.get(each.model_version, 0) for each in group.samples)
            for group in groups
        ]
        if stale := [age for age in ages if age > most]:
            log.warning(
                "stale_groups_dropped",
                role=self.role,
                groups=len(stale),
                oldest=max(stale),
                most=most,
            )
        return [group for group, age in zip(groups, ages, strict=True) if age <= most]

    def announcement(self, step: int) -> ModelPublished:
        """The event that announces a version. It may be repeated: a killed trainer may not have
        sent it.
        """
        version = keys.model(self._run_id, self.role, step)
        digest = manifest_digest(self._store, version)
        return ModelPublished(run_id=self._run_id, role=self.role, version=version, digest=digest)

    def take_step(self, batch: TrainingBatch) -> ModelPublished:
        """Train on the batch, publish the new version, and return its announcement. Safe to repeat
        after an error.
        """
        version = keys.model(self._run_id, self.role, self.steps + 1)
        # It exists if only the last store call failed before.
        if not self._store.exists(f"{version}/{MANIFEST}"):
            self._learn(batch)
        else:
            drop_older(self._store, keys.checkpoint(self._run_id, self.role, self.steps + 1))
        published = self.announcement(self.steps + 1)
        self.steps += 1
        if self.steps == self._wanted.steps:
            # A trainer may handle many runs, and their models would fill its memory.
            self._close()
        log.info(
            "model_published", role=self.role, version=version, reward=round(batch.mean_reward, 3)
        )
        return published

    def _learn(self, batch: TrainingBatch) -> None:
        """Take the step. An error closes the learner: it may have changes that were not
        published.
        """
        self._learner = self._learner or self._open()
        try:
            take_step(self._store, self._run_id, self.role, self._learner, batch, self._first())
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._learner is not None:
            self._learner.close()
            self._learner = None

    def _open(self) -> GrpoLearner:
        first = self._first()
        return open_learner(
            self._store, self._run_id, self.role, self.steps, self._settings, first, first
        )

    def _first(self) -> Path:
        return version_folder(
            self._store, load_settings().cache, self._spec.model_of(self.role), self._spec.base
        )


def check_settings(spec: RunSpec) -> None:
    """Raise ConfigError if the GRPO settings of a run are invalid."""
    for role in spec.training.roles:
        role_settings(spec, role)


def role_settings(spec: RunSpec, role: ModelRole) -> GrpoSettings:
    """The GRPO settings of a role in a run. Raises ConfigError."""
    settings = spec.training.of(role).settings
    return grpo_settings(settings, f"training.{role}", f"run {spec.name!r}", spec.sampling_of(role))
