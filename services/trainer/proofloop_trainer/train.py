"""The trainer's handler: collects complete groups, takes a GRPO step when it has enough, and
publishes the new version.

A step's batch is stored before the step and names the problems that it uses up; the model is
published after the step (`steps`). If the trainer is killed in between, it finds the batch without
its model and repeats the step.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.runs.labels import in_force, labels_of
from proofloop.schema import keys
from proofloop.schema.events import Event, ModelPublished, ProofLabeled
from proofloop.schema.records import Label
from proofloop.store import get_record
from proofloop.store.model_folders import named_folder, require_model
from proofloop.worker.tools import Tools
from proofloop_trainer.fine_tuning.handler import check_fine_tuning
from proofloop_trainer.role_training import RoleInTraining, role_settings

RUNS_KEPT = 8
"""The most runs in memory, with their labels and their models in training. The run without news for
the longest time leaves; its next label reads it again from the store.
"""


class Trainer:
    """The trainer of one process. It handles one message at a time: run it with concurrency 1."""

    def __init__(self) -> None:
        self._runs: dict[str, RunInTraining] = {}

    def train(self, event: ProofLabeled, tools: Tools) -> Iterator[Event]:
        """Count the label and take all steps that are due. A redelivered label announces the same
        versions again.
        """
        run = self._runs.pop(event.run_id, None)
        if run is None:
            run = RunInTraining(event.run_id, tools)
            run.announced[event.proof_id] = [
                learning.announcement(learning.steps) for learning in run.roles if learning.steps
            ]
        self._runs[event.run_id] = run  # the newest stands last
        if len(self._runs) > RUNS_KEPT:
            self._runs.pop(next(iter(self._runs))).close()
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

    def close(self) -> None:
        """Free the models in training. A later label opens them again from their checkpoints."""
        for run in self._runs.values():
            run.close()


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

    def close(self) -> None:
        """Free the models in training."""
        for learning in self.roles:
            learning.close()

    def add(self, label: Label) -> None:
        """Count a label. Once all proofs of a problem are labeled, offer the problem to all
        roles.
        """
        if label.group in self._complete:
            return
        group = self._incomplete[label.group]
        group[label.proof_id] = label
        # A given proof or analysis is a problem of its own.
        is_given = label.group == label.proof_id
        if len(group) == (1 if is_given else self._spec.problems.proofs_per_problem):
            labels = sorted(group.values(), key=lambda label: label.proof_id)
            steps = {learning.role: learning.steps for learning in self.roles}
            for learning in self.roles:
                others = [taken for role, taken in steps.items() if role != learning.role]
                learning.offer(label.group, labels, sum(others))
            self._complete.add(label.group)  # last, so that a store error above repeats the offers
            del self._incomplete[label.group]


def check_settings(spec: RunSpec) -> None:
    """Raise ConfigError if the settings of a run's training are invalid, or a folder that they name
    holds no model.
    """
    if spec.fine_tuning:
        check_fine_tuning(spec.fine_tuning)
        _check_folder("[fine_tuning] start", spec.fine_tuning.start, spec)
    for role in spec.training.roles:
        role_settings(spec, role)
        if reference := spec.training.of(role).reference:
            _check_folder(f"[training.{role}] reference", reference, spec)


def _check_folder(key: str, name: str, spec: RunSpec) -> None:
    if keys.is_version(name):  # `create_run` looks for it
        return
    try:
        require_model(named_folder(name, spec.base))
    except ConfigError as error:
        raise ConfigError(f"{key}: {error.problem}", error.hint) from error
