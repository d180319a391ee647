"""Takes a GRPO step from the last checkpoint to the next version.

The order of writing makes steps safe to repeat: the batch is stored before its step; then the
checkpoint is published; then the version, whose manifest comes last and completes the step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from proofloop.config.run_file.training import Lora
from proofloop.engine.info import is_adapter
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, TrainingBatch, TrainingStep
from proofloop.store import Store, put_record
from proofloop.store.model_folders import MANIFEST, publish_folder, version_folder
from proofloop_trainer.checkpoint import verify_checkpoint, write_model_manifest
from proofloop_trainer.export import copy_model, dtype_of, export_model
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.report import StepReport
from proofloop_trainer.grpo.settings import GrpoSettings


def open_learner(
    store: Store,
    run: str,
    role: ModelRole,
    steps: int,
    settings: GrpoSettings,
    first: Path,
    reference: Path,
    lora: Lora | None = None,
) -> GrpoLearner:
    """The learner after the last published step, or with the model `first` if `steps` is 0."""
    if steps == 0:
        return GrpoLearner(first, settings, reference, lora)
    with tempfile.TemporaryDirectory() as scratch:
        key = keys.checkpoint(run, role, steps)
        folder = version_folder(store, Path(scratch), key)
        return GrpoLearner.restore(folder, reference, settings.tokens_per_pass)


def take_step(
    store: Store,
    run: str,
    role: ModelRole,
    learner: GrpoLearner,
    batch: TrainingBatch,
    first: Path,
    *,
    is_last: bool = False,
) -> TrainingStep:
    """Train on the batch and publish the new version, in the precision of the model `first` unless
    it is an adapter. Returns the step's record. The last step also keeps its weights in 32 bits,
    before the version.

    After an error, open the learner again: it may have changes that were not published.
    """
    report = learner.step(batch)
    version = keys.model(run, role, report.step)
    taken = put_record(
        store, keys.step(run, role, report.step), _record(run, version, batch, report)
    )
    with tempfile.TemporaryDirectory() as scratch:
        full = Path(scratch, "checkpoint")
        model = Path(scratch, "model")
        learner.save(full)
        publish_folder(store, full, keys.checkpoint(run, role, report.step))
        dtype = dtype_of(full if is_adapter(full) else first)
        if is_last:
            keep_weights(store, version, full, dtype)
        export_model(full, model, dtype)
        publish_folder(store, model, version)
    drop_older(store, keys.checkpoint(run, role, report.step))
    return taken


def keep_weights(store: Store, version: str, checkpoint: Path, dtype: torch.dtype) -> None:
    """Keep the weights of a version's checkpoint in 32 bits, for a later training from it.

    40 updates of 1e-6 change a weight by at most 4e-5, but bf16 has no other number within 6e-5 of
    0.02: rounding would lose what such a weight has learnt.
    """
    kept = keys.weights(version)
    if dtype == torch.float32 or store.exists(f"{kept}/{MANIFEST}"):
        return
    verify_checkpoint(checkpoint)  # otherwise the export would give damaged files a valid digest
    with tempfile.TemporaryDirectory() as scratch:
        export_model(checkpoint, Path(scratch, "weights"), torch.float32)
        publish_folder(store, Path(scratch, "weights"), kept)


def exact_weights(store: Store, version: str) -> str:
    """The name of a version's weights before rounding if they were kept, else of the version."""
    kept = keys.weights(version)
    return kept if kept != version and store.exists(f"{kept}/{MANIFEST}") else version


def publish_made(
    store: Store, version: str, step: int, make: Callable[[Path], object], dtype: torch.dtype
) -> None:
    """Make a 32-bit model that needs no checkpoint; publish its weights, then the version in
    `dtype`.

    If the process is killed between the two, the next call finds the weights and does not make them
    again.
    """
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole")
        served = Path(scratch, "served")
        kept = version if dtype == torch.float32 else keys.weights(version)
        if store.exists(f"{kept}/{MANIFEST}"):
            whole = version_folder(store, Path(scratch), kept)
        else:
            make(whole)
            write_model_manifest(whole, step)
            publish_folder(store, whole, kept)
        if kept != version:
            copy_model(whole, served, dtype)
            write_model_manifest(served, step)
            publish_folder(store, served, version)


def drop_older(store: Store, newest: str) -> None:
    """Delete the checkpoints or versions in the folder of `newest` that are older than it."""
    siblings = store.list(f"{keys.folder_of(newest)}/")
    for version in {keys.version_of(key) for key in siblings}:
        if version < newest:
            store.delete_prefix(f"{version}/")


def _record(run: str, version: str, batch: TrainingBatch, report: StepReport) -> TrainingStep:
    figures = {name: float(value) for name, value in asdict(report).items()}
    return TrainingStep(
        run_id=run,
        role=batch.role,
        step=report.step,
        version=version,
        sampled_by=tuple(sorted({sample.model_version for sample in batch.samples})),
        figures={
            **figures,
            "mean_reward": batch.mean_reward,
            "samples": float(len(batch.samples)),
            **batch.figures,
        },
        reward_parts=batch.reward_parts,
        grades=batch.grades,
    )
