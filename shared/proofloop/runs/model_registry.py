"""The model versions of a run: which are published, and which each role serves.

The served versions are an append-only log, so promotion, rollback and duplicate or late events are
all safe.

A version's name is its key prefix in the store ("runs/demo/models/verifier/000003"), or any name
that the engine knows. `store.model_folders` has its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proofloop.errors import ConfigError
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Record
from proofloop.store import Store, last_record, put_new, records_below
from proofloop.store.model_folders import MANIFEST, verify_version

PUBLISHED = "published"
"""The prefix of the log reason for a version that the trainer published."""

ROLLED_BACK = "rolled back after"
"""The prefix of the log reason for a rollback; the rest makes the reason unique."""


class ServedVersion(Record):
    """One line of the log: a version that went into service, and the reason."""

    version: str
    reason: str


def served_log(store: Store, run_id: str, role: ModelRole) -> list[ServedVersion]:
    """The log of a role: every version that went into service, oldest first."""
    return list(records_below(store, keys.served(run_id, role), ServedVersion))


def last_served(store: Store, run_id: str, role: ModelRole) -> str | None:
    """The version in service, read from the log's last line; None if the log is empty."""
    last = last_record(store, keys.served(run_id, role), ServedVersion)
    return last.version if last else None


def put_in_service(store: Store, run_id: str, role: ModelRole, version: str) -> None:
    """Append a published version to the log, unless it was adopted before. A version rolled back
    since stays out.
    """
    while not is_adopted(log := served_log(store, run_id, role), version):
        _append(store, run_id, role, version, f"{PUBLISHED} {version}", place=len(log))


def is_adopted(log: Iterable[ServedVersion], version: str) -> bool:
    """Whether this published version or a later one went into service already: its event is a
    duplicate or late.

    A role's version names sort like their zero-padded numbers.
    """
    return any(line.reason.startswith(PUBLISHED) and line.version >= version for line in log)


def _append(
    store: Store, run_id: str, role: ModelRole, version: str, reason: str, *, place: int
) -> bool:
    """Write the log's line number `place`; false if another writer was first."""
    line = ServedVersion(version=version, reason=reason)
    key = f"{keys.served(run_id, role)}{place:06d}.json"
    return put_new(store, key, line, durable=True)


def published_versions(store: Store, run_id: str, name: str) -> list[str]:
    """The complete versions of a role, or of the one model of "all" roles, oldest first."""
    listed = list(store.list(keys.models(run_id, name)))
    return [version for key in listed if key == f"{(version := keys.version_of(key))}/{MANIFEST}"]


def newest_step(store: Store, run_id: str, name: str) -> int:
    """The number of the newest complete version, 0 without any. A curriculum deletes older ones."""
    versions = published_versions(store, run_id, name)
    found = keys.parse_numbered(versions[-1]) if versions else None
    return found.number if found else 0


Prepare = Callable[[str], None]
"""Loads a version into the run's engine. If it raises, the present version stays in service."""


def promote(
    store: Store,
    run_id: str,
    role: ModelRole,
    version: str,
    first: str,
    prepare: Prepare = lambda version: None,
) -> str:
    """Put a complete version in service on a user's request, after `prepare`. Returns the version's
    name.

    `version` is a name or a number. `first` is the version in the run file, which the run began
    with. Raises ConfigError if there is no such version, CorruptObject if it is damaged.
    """
    published = published_versions(store, run_id, role)
    numbered = keys.model(run_id, role, int(version)) if version.isdecimal() else version
    if numbered not in [first, *published]:
        known = ", ".join([first, *published])
        raise ConfigError(
            f"{role} has no complete version {version!r} in run {run_id}", f"one of {known}"
        )
    if numbered in published:
        verify_version(store, numbered)
    promote_version(store, run_id, role, numbered, prepare)
    return numbered


def promote_version(
    store: Store,
    run_id: str,
    role: ModelRole,
    version: str,
    prepare: Prepare = lambda version: None,
) -> None:
    """Put a version in service, after `prepare`."""
    prepare(version)
    while True:
        place = len(served_log(store, run_id, role))
        if _append(store, run_id, role, version, f"promoted after {place}", place=place):
            return


def rollback(
    store: Store, run_id: str, role: ModelRole, first: str, prepare: Prepare = lambda version: None
) -> str:
    """Take the present version out of service and serve its predecessor again, after `prepare`.

    `first` is the version in the run file, which the run began with. Returns the predecessor's
    name. Raises ConfigError if there is none, or if another version went into service meanwhile.
    """
    log = served_log(store, run_id, role)
    history = _history(first, log)
    if len(history) < 2:
        raise ConfigError(
            f"{role} in run {run_id} serves its first version {first!r}",
            "there is nothing to roll back to",
        )
    previous = history[-2]
    prepare(previous)
    if not _append(store, run_id, role, previous, f"{ROLLED_BACK} {len(log)}", place=len(log)):
        raise ConfigError(
            f"{role} in run {run_id}: another version went into service meanwhile; nothing was"
            " rolled back",
            "see `proofloop models list`, then run the command again if the rollback is still"
            " needed",
        )
    return previous


def _history(first: str, log: list[ServedVersion]) -> list[str]:
    """The versions that were not rolled back, oldest first; the last is in service. Two rollbacks
    go back by two.
    """
    versions = [first]
    for line in log:
        if line.reason.startswith(ROLLED_BACK):
            versions = versions[:-1] or [first]
        elif line.version != versions[-1]:
            versions.append(line.version)
    return versions
