"""The stored demonstrations of a run: the trainer may run on another machine than the one with the
file.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofloop.config.demonstration_file import Demonstration, read_demonstrations
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.schema import keys
from proofloop.schema.records import Record
from proofloop.store import Store, last_record, put_record, records_below

PORTION = 500
"""The most demonstrations in one object: a few megabytes of long answers."""


class DemonstrationPortion(Record):
    """Some of the demonstrations, in order."""

    demonstrations: tuple[Demonstration, ...]
    is_last: bool


def file_portions(
    store: Store, spec: RunSpec, pack: PromptPack | None = None
) -> list[DemonstrationPortion]:
    """The demonstrations of the run's file. None if the run names no file, or if the file is gone
    and its rows are stored. Raises ConfigError for a bad row.
    """
    if spec.fine_tuning is None or spec.fine_tuning.demonstrations is None:
        return []
    file = spec.base / spec.fine_tuning.demonstrations
    if not file.is_file() and _are_kept(store, spec.name):
        return []
    rows = list(read_demonstrations(file, pack or load_pack(spec.prompts, spec.base)))
    parts = [rows[begin : begin + PORTION] for begin in range(0, len(rows), PORTION)]
    return [
        DemonstrationPortion(demonstrations=tuple(part), is_last=part is parts[-1])
        for part in parts
    ]


def keep_demonstrations(store: Store, spec: RunSpec, portions: list[DemonstrationPortion]) -> None:
    """Store the portions of a run. Raises ConfigError if the run began with others."""
    for number, portion in enumerate(portions):
        key = keys.demonstration_portion(spec.name, number)
        if put_record(store, key, portion, durable=True) != portion:
            assert spec.fine_tuning is not None
            raise ConfigError(
                f"{spec.fine_tuning.demonstrations} has other rows than run {spec.name!r} began"
                " with",
                "restore the file, or give the run another name",
            )


def _are_kept(store: Store, run_id: str) -> bool:
    """Whether all demonstrations of the run are stored: its file is needed no more."""
    last = last_record(store, keys.demonstrations(run_id), DemonstrationPortion)
    return last is not None and last.is_last


def demonstrations_of(store: Store, run_id: str) -> Iterator[Demonstration]:
    """The run's demonstrations in order, one portion in memory at a time."""
    for portion in records_below(store, keys.demonstrations(run_id), DemonstrationPortion):
        yield from portion.demonstrations
