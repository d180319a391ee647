"""The records of supervised steps: `proofloop runs steps` and the progress of a run read them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import fmean

from proofloop.schema import keys
from proofloop.schema.records import ALL_ROLES, ANSWERS, ModelRole, TrainingStep
from proofloop.store import Store, put_record
from proofloop_trainer.fine_tuning.supervised import SupervisedStep

MOST_RECORDS = 50
"""About so many records: a training may have thousands of steps."""


class StepRecords:
    """Records every few steps, and the last one, with the mean loss since the record before.

    `of_role`: how many answers of each role are learned, where that is known.
    """

    def __init__(
        self, store: Store, run_id: str, total: int, of_role: Mapping[ModelRole, int] | None = None
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._every = max(1, total // MOST_RECORDS)
        self._version = keys.model(run_id, ALL_ROLES, total)
        self._answers = {
            f"{ANSWERS}{role}": float(count) for role, count in (of_role or {}).items()
        }
        self._since: list[SupervisedStep] = []
        self._began_s = time.monotonic()

    def add(self, step: SupervisedStep) -> None:
        """Take note of a step. The first one deletes the records of a training that was stopped: it
        may have had other settings. Raises StoreError.
        """
        if step.number == 1:
            self._store.delete_prefix(keys.steps(self._run_id, ALL_ROLES))
        self._since.append(step)
        if step.number % self._every and step.number < step.total:
            return
        key = keys.step(self._run_id, ALL_ROLES, step.number)
        put_record(self._store, key, self._record(step))
        self._since, self._began_s = [], time.monotonic()

    def _record(self, step: SupervisedStep) -> TrainingStep:
        figures = {
            "loss": fmean(each.loss for each in self._since),
            "learning_rate": step.learning_rate,
            "tokens": float(sum(each.tokens for each in self._since)),
            "seconds": time.monotonic() - self._began_s,
            "total_steps": float(step.total),
            **self._answers,
        }
        return TrainingStep(
            run_id=self._run_id,
            role=ALL_ROLES,
            step=step.number,
            version=self._version,
            sampled_by=(),
            figures=figures,
            reward_parts={},
        )
