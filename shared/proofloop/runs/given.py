"""The given cases of a run, stored in portions; portions are only added.

Cases come from a file that the run file names (`config.given_files`), or from a curriculum or the
Python API (`[problems] material`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.store import Store, put_record, records_below

PORTION = 500
"""The most cases in a portion that comes from a file: a few megabytes of long proofs."""


def portions_of(store: Store, run_id: str) -> Iterator[GivenPortion]:
    """The run's portions in order, one at a time."""
    return records_below(store, keys.given_portions(run_id), GivenPortion)


def cases_of(store: Store, run_id: str) -> Iterator[GivenCase]:
    """The run's cases in order."""
    for portion in portions_of(store, run_id):
        yield from portion.cases


def keep_portion(store: Store, run_id: str, number: int, cases: Iterable[GivenCase]) -> None:
    """Store a portion of a curriculum's run. Safe to repeat: the first cases stay."""
    portion = GivenPortion(cases=tuple(cases))
    put_record(store, keys.given_portion(run_id, number), portion, durable=True)


def keep_portions(store: Store, run_id: str, portions: Sequence[GivenPortion]) -> None:
    """Store the portions that are missing. Raises ConfigError if the stored portions differ."""
    for stored, now in zip(portions_of(store, run_id), portions, strict=False):
        if stored != now:
            raise ConfigError(
                f"run {run_id!r} in the store began with other rows, or another scale",
                "give the run another name (`proofloop judge --name`); to resume it, bring back its"
                " first rows and its scale",
            )
    kept = sum(1 for _ in store.list(keys.given_portions(run_id)))
    for number, portion in enumerate(portions[kept:], kept):
        _put(store, run_id, number, portion)


def keep_given(store: Store, spec: RunSpec, cases: Sequence[GivenCase]) -> None:
    """Store the cases of the run's file that are not stored yet. Raises ConfigError if the stored
    cases differ.
    """
    kept = sum(1 for _ in store.list(keys.given_portions(spec.name)))
    new = new_cases(store, spec, cases)
    for number, begin in enumerate(range(0, len(new), PORTION), kept):
        _put(store, spec.name, number, GivenPortion(cases=tuple(new[begin : begin + PORTION])))


def new_cases(store: Store, spec: RunSpec, now: Sequence[GivenCase]) -> Sequence[GivenCase]:
    """The cases of the run's file (`now`) that follow the stored ones. Raises ConfigError unless
    the file begins with the stored ones.
    """
    number = 0
    for number, stored in enumerate(cases_of(store, spec.name), 1):
        if number > len(now):
            kept = sum(1 for _ in cases_of(store, spec.name))
            raise ConfigError(
                f"{spec.problems.given_file} has {len(now)} cases, but run {spec.name!r} has"
                f" {kept}: cases may only be added",
                "put the missing rows back, raise or leave out [problems] count, or give the run"
                " another name",
            )
        if _content(now[number - 1]) != _content(stored):
            origin = stored.given.origin if stored.given else f"case {number}"
            raise ConfigError(
                f"{spec.problems.given_file} differs from the file that run {spec.name!r} began"
                f" with, from {origin} on",
                "put the old rows back in their order and new ones behind them, or give the run"
                " another name",
            )
    return now[number:]


def _content(case: GivenCase) -> GivenCase:
    """The case without its origin: a file may have moved."""
    given = case.given.model_copy(update={"origin": ""}) if case.given else None
    return case.model_copy(update={"given": given})


def _put(store: Store, run_id: str, number: int, portion: GivenPortion) -> None:
    key = keys.given_portion(run_id, number)
    body = portion.model_dump_json().encode()
    if not store.put_if_absent(key, body, durable=True) and store.get(key) != body:
        raise ConfigError(
            f"another process added portion {number} to run {run_id!r}",
            "let one process at a time add cases to a run",
        )
