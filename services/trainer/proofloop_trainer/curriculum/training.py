"""A stage of GRPO: batch by batch from a model to a better one. Each batch is stored before its
step.

A killed stage continues with the identical next step, from the last checkpoint and the stored
batch.
"""

from __future__ import annotations

from collections.abc import Callable

from proofloop.errors import HintedError
from proofloop.runs.model_registry import published_versions
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, TrainingBatch, TrainingSample, TrainingStep
from proofloop.store import Store, find_record, get_record, put_record
from proofloop_trainer.curriculum.asking import Count
from proofloop_trainer.curriculum.watch import Sight, check, look
from proofloop_trainer.curriculum.work import Work
from proofloop_trainer.export import dtype_of
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.samples import mean_parts
from proofloop_trainer.steps import drop_older, keep_weights, open_learner, take_step

Rollout = Callable[[int, str], list[TrainingSample]]
"""The samples of step i, answered by this version of the model in training."""


def train(
    work: Work,
    name: str,
    role: ModelRole,
    start: str,
    steps: int,
    settings: GrpoSettings,
    rollout: Rollout,
    reference: str | None = None,
) -> str:
    """Take the remaining ones of `steps` steps and return the last version. `name` is the stage's
    name in the store.

    The KL term uses `reference`, by default `start`.
    """
    versions = published_versions(work.store, work.spec.name, name)
    last = keys.parse_numbered(versions[-1]) if versions else None
    sights = _sights(work.store, work.spec.name, name, last.number if last else 0)
    check(name, sights, work.spec.watch)  # a stopped stage stays stopped
    version = versions[-1] if versions else start
    learner: GrpoLearner | None = None
    count = Count(steps, len(sights))
    try:
        while len(sights) < steps:
            work.check_stopping()
            if learner is None:
                folders = work.weights(start), work.weights(reference or start)
                learner = open_learner(
                    work.store, work.spec.name, name, len(sights), settings, *folders
                )
            batch = _batch(work, name, role, len(sights), version, rollout)
            taken = take_step(work.store, work.spec.name, name, learner, batch, work.folder(start))
            version = taken.version
            # Only the newest version answers; all of them would fill the disk.
            drop_older(work.store, version, work.cache)
            sights.append(look(batch.samples))
            work.say(f"{name}: step {count.at(len(sights))}, {_figures(taken, settings)}")
            check(name, sights, work.spec.watch)
    finally:
        if learner is not None:
            learner.close()
    if sights:
        keep_weights(work.store, work.spec.name, name, len(sights), dtype_of(work.folder(start)))
    return version


def _figures(taken: TrainingStep, settings: GrpoSettings) -> str:
    """The main figures in one line; `proofloop runs steps` prints all."""
    pulled = f", KL {taken.figures['kl']:.4f}" if settings.kl_coefficient else ""
    return (
        f"reward {taken.figures['mean_reward']:.3f}{pulled}, length"
        f" {taken.figures['completion_length']:.0f}"
    )


def _batch(
    work: Work, name: str, role: ModelRole, step: int, version: str, rollout: Rollout
) -> TrainingBatch:
    key = keys.batch(work.spec.name, name, step)
    if (found := find_record(work.store, key, TrainingBatch)) is not None:
        return found
    samples = tuple(rollout(step, version))
    if not samples:
        raise HintedError(
            f"{name}: step {step + 1} has no cases to learn from",
            "raise the stage's groups, or give more data",
        )
    batch = TrainingBatch(
        run_id=work.spec.name,
        role=role,
        step=step,
        samples=samples,
        mean_reward=sum(sample.reward for sample in samples) / len(samples),
        reward_parts=mean_parts(samples),
    )
    batch = put_record(work.store, key, batch, durable=True)
    work.kept.clear()
    return batch


def _sights(store: Store, run: str, name: str, steps: int) -> list[Sight]:
    return [
        look(get_record(store, keys.batch(run, name, step), TrainingBatch).samples)
        for step in range(steps)
    ]
