"""One role of a run in training: chooses the batch of each step, takes the step, and publishes the
new version.

A batch lists its problems in the order of their ids, and its answers in the order of proofs and
critiques. With `ahead = 1` a step's batch is therefore the same in whatever order labels arrive.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError, Reject
from proofloop.runs.labels import in_force
from proofloop.runs.model_registry import newest_step
from proofloop.schema import keys
from proofloop.schema.events import ModelPublished
from proofloop.schema.records import Label, ModelRole, Record, TrainingBatch
from proofloop.store import get_record, put_record, records_below
from proofloop.store.model_folders import MANIFEST, manifest_digest, version_folder
from proofloop.worker.tools import Tools
from proofloop_trainer.figures import failed_share, figures_of
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings, grpo_settings
from proofloop_trainer.samples import (
    Group,
    RewardedAnswer,
    choose_groups,
    groups_of,
    large_enough,
    mean_parts,
)
from proofloop_trainer.steps import drop_older, exact_weights, open_learner, take_step

log = structlog.get_logger()


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
        batches = list(records_below(self._store, keys.batches(run_id, role), _Problems))
        skipped = self._store.list(keys.skipped_problems(run_id, role))
        self._used = {problem for batch in batches for problem in batch.problems}
        self._begun = len(batches)
        self._used |= {keys.name_of(key) for key in skipped}
        self.steps = newest_step(self._store, run_id, role)
        # A killed trainer may have left older checkpoints.
        drop_older(self._store, keys.checkpoint(run_id, role, self.steps))
        self._learner: GrpoLearner | None = None

    def offer(self, problem: str, labels: list[Label], steps_of_others: int) -> None:
        """Accept a complete problem once, unless the training is over. A problem that comes before
        `begin` is never used.
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
        problems = tuple(sorted(tuple(self._waiting)[: self._spec.training.problems]))
        batch = self._batch(problems, [self._waiting[problem] for problem in problems])
        if batch.samples:
            batch = put_record(self._store, key, batch, durable=True)
            problems = batch.problems  # another trainer may have been first
            self._begun += 1
            self._used.update(problems)
        else:
            self._skip(*problems)
        for problem in problems:  # last, so that they still wait after a store error above
            self._waiting.pop(problem, None)
        if not batch.samples:
            log.warning("nothing_to_learn", role=self.role, problems=problems)
            return None
        return batch

    def _batch(self, problems: tuple[str, ...], labels: list[list[Label]]) -> TrainingBatch:
        groups: list[Group] = []
        grades: dict[str, int] = {}
        for of_problem in labels:
            # A person may have graded since.
            current = [in_force(self._store, label) for label in of_problem]
            grades |= {each.proof_id: each.grade for each in current if each.grade is not None}
            groups += groups_of(self.role, current, self._spec, self._store)
        failed = failed_share(groups)
        groups = large_enough(groups, self.role, self._spec)
        everything = [answer for group in groups for answer in group.answers]
        self._check_temperature(everything)
        chosen = self._chosen(self._fresh(groups))
        return TrainingBatch(
            run_id=self._run_id,
            role=self.role,
            step=self.steps,
            problems=problems,
            mean_reward=fmean(answer.reward for answer in everything) if everything else 0.0,
            reward_parts=mean_parts(everything),
            figures=figures_of(groups) | failed,
            grades=grades,
            samples=tuple(
                answer.sample(self._store) for group in chosen for answer in group.answers
            ),
        )

    def _check_temperature(self, answers: list[RewardedAnswer]) -> None:
        """Raise Reject for an answer whose log-probabilities are of another temperature: a
        meta-verifier's, where the verifier learns both roles.
        """
        expected = self._settings.temperature
        for answer in answers:
            if answer.provenance.sampling.temperature != expected:
                raise Reject(
                    f"{answer.key} was sampled at temperature"
                    f" {answer.provenance.sampling.temperature:g}, but [training.{self.role}]"
                    f" trains on answers at {expected:g}; give [sampling] {answer.role} this"
                    " temperature"
                )

    def _chosen(self, groups: list[Group]) -> list[Group]:
        if self._wanted.train_on == "all":
            return groups
        # If no group has a signal, the step changes nothing.
        return choose_groups(groups, self._wanted.groups) or groups[:1]

    def _fresh(self, groups: list[Group]) -> list[Group]:
        """Leave out the groups that have an answer of a model older than `max_staleness` steps."""
        most = self._settings.max_staleness
        if most is None:
            return groups
        made_at = {
            keys.model(self._run_id, self.role, step): step for step in range(1, self.steps + 1)
        }
        ages = [
            max(self.steps - made_at.get(version, 0) for version in group.model_versions)
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
            self.close()  # another trainer may have taken the step: this model lacks it
            drop_older(self._store, keys.checkpoint(self._run_id, self.role, self.steps + 1))
        published = self.announcement(self.steps + 1)
        self.steps += 1
        if self.steps == self._wanted.steps:
            # A trainer may handle many runs, and their models would fill its memory.
            self.close()
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
            take_step(
                self._store,
                self._run_id,
                self.role,
                self._learner,
                batch,
                self._folder(self._spec.model_of(self.role)),
                is_last=self.steps + 1 == self._wanted.steps,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the model in training, in all processes. The next step opens it again."""
        if self._learner is not None:
            self._learner.close()
            self._learner = None

    def _open(self) -> GrpoLearner:
        start = self._spec.model_of(self.role)
        reference = self._wanted.reference or start
        first, pulled_to = (
            self._folder(exact_weights(self._store, name)) for name in (start, reference)
        )
        try:
            return open_learner(
                self._store,
                self._run_id,
                self.role,
                self.steps,
                self._settings,
                first,
                pulled_to,
                self._spec.lora,
            )
        except ConfigError as error:
            raise Reject(f"the training of the {self.role} cannot begin: {error}") from error

    def _folder(self, version: str) -> Path:
        return version_folder(self._store, load_settings().cache, version, self._spec.base)


def role_settings(spec: RunSpec, role: ModelRole) -> GrpoSettings:
    """The GRPO settings of a role in a run. Raises ConfigError."""
    settings = spec.training.of(role).settings
    return grpo_settings(settings, f"training.{role}", f"run {spec.name!r}", spec.sampling_of(role))
