"""A stage of GRPO: batch by batch from a model to a better one, each batch written before its step.

Killed at any moment it goes on with the identical next step: from the last checkpoint, with the batch that lies there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from proofloop import keys
from proofloop.models import publish_folder, published_versions, version_folder
from proofloop.records import ModelRole, TrainingBatch, TrainingSample, TrainingStep
from proofloop.store import Store, find_record, get_record, put_record
from proofloop_trainer.checkpoint import save_checkpoint
from proofloop_trainer.curriculum.watch import Sight, check, look
from proofloop_trainer.curriculum.work import Work
from proofloop_trainer.export import export_model
from proofloop_trainer.grpo import GrpoLearner, StepReport
from proofloop_trainer.grpo_settings import GrpoSettings
from proofloop_trainer.train import mean_parts

Rollout = Callable[[int, str], list[TrainingSample]]
"""The samples of step number i, answered by this version of the model in training."""


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
    """Take what is left of `steps` steps; the version that stands at the end. `name` is the stage's in the store.

    The KL term pulls to `reference`, or to `start`.
    """
    versions = published_versions(work.store, work.spec.name, name)  # type: ignore[arg-type]
    sights = _sights(work.store, work.spec.name, name, len(versions))
    check(name, sights, work.spec.watch)  # what was stopped stays stopped
    version = versions[-1] if versions else start
    learner: GrpoLearner | None = None
    while len(sights) < steps:
        work.check_stopping()
        learner = learner or _open(work, name, (start, reference or start), len(sights), settings)
        batch = _batch(work, name, role, len(sights), version, rollout)
        version = _step(work, name, learner, batch)
        sights.append(look(batch.samples))
        work.say(f"{name}: step {len(sights)}/{steps}, reward {batch.mean_reward:.3f}")
        check(name, sights, work.spec.watch)
    return version


def _batch(work: Work, name: str, role: ModelRole, step: int, version: str, rollout: Rollout) -> TrainingBatch:
    key = keys.batch(work.spec.name, name, step)
    if (found := find_record(work.store, key, TrainingBatch)) is not None:
        return found
    samples = tuple(rollout(step, version))
    batch = TrainingBatch(
        run_id=work.spec.name,
        role=role,
        step=step,
        samples=samples,
        mean_reward=sum(sample.reward for sample in samples) / len(samples),
        reward_parts=mean_parts(samples),
    )
    return put_record(work.store, key, batch, durable=True)


def _step(work: Work, name: str, learner: GrpoLearner, batch: TrainingBatch) -> str:
    """Train on the batch; the new version, published."""
    report = learner.step(batch)
    run, store, steps = work.spec.name, work.store, learner.steps
    version = keys.model(run, name, steps)
    put_record(store, keys.step(run, name, steps), _record(run, version, batch, report))
    with tempfile.TemporaryDirectory() as scratch:
        full, model = Path(scratch, "checkpoint"), Path(scratch, "model")
        save_checkpoint(learner, full)
        publish_folder(store, full, keys.checkpoint(run, name, steps))
        export_model(full, model)
        publish_folder(store, model, version)
    if steps > 1:
        store.delete_prefix(f"{keys.checkpoint(run, name, steps - 1)}/")
    return version


def _record(run: str, version: str, batch: TrainingBatch, report: StepReport) -> TrainingStep:
    figures = {name: float(value) for name, value in asdict(report).items()}
    return TrainingStep(
        run_id=run,
        role=batch.role,
        step=report.step,
        version=version,
        sampled_by=tuple(sorted({sample.model_version for sample in batch.samples})),
        figures={**figures, "mean_reward": batch.mean_reward, "samples": float(len(batch.samples))},
        reward_parts=batch.reward_parts,
    )


def _open(work: Work, name: str, versions: tuple[str, str], steps: int, settings: GrpoSettings) -> GrpoLearner:
    """The learner where its last published step left it, or at the first version; the other is the reference."""
    first, reference = (work.folder(version) for version in versions)
    if steps == 0:
        return GrpoLearner(first, settings, reference)
    with tempfile.TemporaryDirectory() as scratch:
        key = keys.checkpoint(work.spec.name, name, steps)
        return GrpoLearner.restore(version_folder(work.store, Path(scratch), key), reference)


def _sights(store: Store, run: str, name: str, steps: int) -> list[Sight]:
    return [look(get_record(store, keys.batch(run, name, step), TrainingBatch).samples) for step in range(steps)]
