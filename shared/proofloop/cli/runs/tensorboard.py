"""Writes training steps as event files, which TensorBoard and most trackers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from proofloop.errors import library
from proofloop.schema.records import TrainingStep

SUFFIX = ".proofloop"
"""The end of the names of our event files."""


def write_events(steps: Mapping[str, Sequence[TrainingStep]], folder: Path) -> None:
    """Write the figures of each stage to a folder of its name. Event files of an earlier call are
    replaced. Raises ConfigError if tensorboardX is not installed.
    """
    with library("tensorboardX, which writes event files, is not installed", "[tensorboard]"):
        from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
    for stage, of in steps.items():
        if not of:
            continue
        for earlier in (folder / stage).glob(f"events.out.tfevents.*{SUFFIX}"):
            earlier.unlink()
        with SummaryWriter(str(folder / stage), filename_suffix=SUFFIX) as writer:
            for step in of:
                for name, value in _figures(step).items():
                    writer.add_scalar(name, value, step.step)


def _figures(step: TrainingStep) -> dict[str, float]:
    parts = {f"reward/{name}": value for name, value in step.reward_parts.items()}
    return {**step.figures, **parts}
