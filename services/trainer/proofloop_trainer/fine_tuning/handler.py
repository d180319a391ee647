"""The trainer's handler of supervised training: from a run's [fine_tuning] to one model of all
roles in the store.

The model is made whole or not at all, so a killed trainer makes it again from the beginning: the
same data and seed give the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
import torch

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.training import FineTuning
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError, CorruptObject, NotFound, Reject, Retry
from proofloop.runs.model_registry import published_versions
from proofloop.schema import keys
from proofloop.schema.events import Event, FineTuningPosed
from proofloop.schema.records import ALL_ROLES
from proofloop.store import Store
from proofloop.store.model_folders import require_model, version_folder
from proofloop.worker.tools import Tools
from proofloop_trainer.export import dtype_of
from proofloop_trainer.fine_tuning.rows import answers_to_learn
from proofloop_trainer.fine_tuning.step_records import StepRecords
from proofloop_trainer.fine_tuning.supervised import Schedule, fine_tune
from proofloop_trainer.nano.pretrain import check_is_nano, cold_start
from proofloop_trainer.steps import exact_weights, publish_made

log = structlog.get_logger()

NANO = "nano"
"""The only domain with demonstrations of its own."""


def train_supervised(event: FineTuningPosed, tools: Tools) -> Iterator[Event]:
    """Make the run's model unless it is there. Raises Reject for data that cannot train."""
    spec = tools.runs.spec(event.run_id)
    if spec.fine_tuning is None:
        raise Reject(f"run {spec.name!r} has no [fine_tuning]")
    if not published_versions(tools.store, spec.name, ALL_ROLES):
        try:
            _make_model(spec, spec.fine_tuning, tools)
        except (ConfigError, NotFound, CorruptObject) as error:
            raise Reject(f"the supervised training cannot begin: {error}") from error
    yield from ()


def check_fine_tuning(section: FineTuning) -> None:
    """Raise ConfigError if the trainer cannot do this training."""
    if section.domain not in (None, NANO):
        raise ConfigError(
            f"[fine_tuning] domain = {section.domain!r} has no demonstrations",
            f'set domain = "{NANO}", or give demonstrations or runs',
        )


def _make_model(spec: RunSpec, section: FineTuning, tools: Tools) -> None:
    check_fine_tuning(section)
    store = tools.store
    served = _folder(store, spec, section.start)
    start = _folder(store, spec, exact_weights(store, section.start))
    require_model(start)
    steps, train = _training(spec, section, start, tools)
    version = keys.model(spec.name, ALL_ROLES, steps)
    dtype = torch.float32 if spec.lora else dtype_of(served)
    publish_made(store, version, steps, train, dtype)
    log.info("model_published", role=ALL_ROLES, version=version)


def _folder(store: Store, spec: RunSpec, version: str) -> Path:
    return version_folder(store, load_settings().cache, version, spec.base)


def _training(
    spec: RunSpec, section: FineTuning, start: Path, tools: Tools
) -> tuple[int, Callable[[Path], None]]:
    """The number of updates, and a function that writes the trained model to a folder."""

    def check_stopping() -> None:
        if tools.shutdown.must_cancel:
            raise Retry("the trainer is stopping; the supervised training begins anew")

    if section.domain:
        check_is_nano(start)
        steps = section.steps or 1
        records = StepRecords(tools.store, spec.name, steps)
        return steps, lambda folder: cold_start(
            start,
            folder,
            seed=spec.seed,
            steps=steps,
            batch=section.batch,
            learning_rate=section.learning_rate,
            before_step=check_stopping,
            after_step=records.add,
        )
    lessons, schedule = answers_to_learn(tools.store, spec, section, start), Schedule.of(section)
    steps = schedule.updates(len(lessons.answers))
    records = StepRecords(tools.store, spec.name, steps, lessons.of_role)
    return steps, lambda folder: fine_tune(
        start, folder, lessons.answers, schedule, spec.seed, spec.lora, check_stopping, records.add
    )
