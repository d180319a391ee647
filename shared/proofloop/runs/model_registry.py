"""The model versions of a run: which are published, and which each role serves.

The served versions are an append-only log, so promotion, rollback and duplicate or late events are
all safe.

A version's name is its key prefix in the store ("runs/demo/models/verifier/000003"), or any name
that the engine knows. Its files are in a folder below, which the first digits of the manifest's
digest name. Two trainers that publish one version therefore never mix their files, and the manifest
beside the folder decides: it is written last, by the first of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

from proofloop.errors import ConfigError, CorruptObject, NotFound
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Record
from proofloop.store import LocalStore, Store, last_record, put_new, records_below

MANIFEST = "manifest.json"
"""The version's list of files, written last. A version without it is incomplete and never
served. The folder of the files holds a copy.
"""

FILE_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
"""The names that a manifest may contain. A path would write outside the folder of the copies."""

PUBLISHED = "published"
"""The prefix of the log reason for a version that the trainer published."""

COPIES_KEPT = 4
"""The most local copies of one role's versions in a run: the last used ones."""

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


def manifest_files(store: Store, version: str) -> dict[str, str]:
    """The SHA-256 digests of a version's files by name, from its manifest; with the manifest
    itself. Raises NotFound, CorruptObject.
    """
    data = store.get(f"{version}/{MANIFEST}")
    try:
        found = {str(entry["name"]): str(entry["sha256"]) for entry in json.loads(data)["files"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptObject(f"{version}/{MANIFEST} cannot be read: {error}") from error
    if wrong := [name for name in found if not re.fullmatch(FILE_NAME, name)]:
        raise CorruptObject(f"{version}/{MANIFEST} has {wrong[0]!r}, which is not a file name")
    return {**found, MANIFEST: hashlib.sha256(data).hexdigest()}


def files_of(version: str, digest: str) -> str:
    """The key of the folder with the files whose manifest has this digest."""
    return f"{version}/{digest[:12]}"


def verify_version(store: Store, version: str) -> None:
    """Compare all files with the manifest. Raises CorruptObject that names the first file that
    differs.
    """
    files = manifest_files(store, version)
    for name, expected in files.items():
        for _ in _verified(store, f"{files_of(version, files[MANIFEST])}/{name}", expected):
            pass


def _verified(store: Store, key: str, expected: str) -> Iterator[bytes]:
    """A file in chunks, since a shard may be larger than memory. Raises CorruptObject after the
    last if it differs.
    """
    found = hashlib.sha256()
    try:
        for chunk in store.chunks(key):
            found.update(chunk)
            yield chunk
    except NotFound as error:
        raise CorruptObject(f"{key} is missing") from error
    if found.hexdigest() != expected:
        raise CorruptObject(
            f"{key} has digest {found.hexdigest()[:12]}, its manifest says {expected[:12]}"
        )


@lru_cache(maxsize=1024)  # runs at every model call, and entry_points() reads the disk
def is_beside_run_file(version: str) -> bool:
    """Whether the version is a relative path, which `version_folder` resolves against the run
    file's folder.
    """
    is_known = keys.is_version(version) or entry_points(group="proofloop.models", name=version)
    return not is_known and not Path(version).is_absolute()


def named_folder(name: str, base: Path) -> Path:
    """The folder of a model: from an installed package (entry point `proofloop.models`), else the
    path below `base`.
    """
    for point in entry_points(group="proofloop.models", name=name):
        return Path(point.load()())
    return base / name


def require_model(folder: Path) -> None:
    """Raise ConfigError unless the folder holds a model; a name on the Hugging Face hub is not
    enough.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"no model in {folder}: config.json is missing",
            "give a folder in Hugging Face format; from the hub: hf download OWNER/NAME"
            " --local-dir FOLDER",
        )


def version_folder(store: Store, cache: Path, version: str, base: Path = Path()) -> Path:
    """A local folder with the version's files: the files of a local store, or a verified copy in
    `cache`. The copy's name has the manifest's digest: a version of another store, or of a run that
    was deleted and posed again, is another one.

    `named_folder` resolves other names. Raises NotFound, CorruptObject, StoreError.
    """
    if not keys.is_version(version):
        return named_folder(version, base)
    if isinstance(store, LocalStore):
        return store.path(files_of(version, manifest_digest(store, version)))
    files = manifest_files(store, version)
    target = cache / f"{version}-{files[MANIFEST][:12]}"
    if not (target / MANIFEST).exists():
        _fetch(store, files_of(version, files[MANIFEST]), files, target)
    with suppress(OSError):  # a read-only cache
        os.utime(target)
        _delete_old_copies(target.parent)
    return target


def _delete_old_copies(folder: Path) -> None:
    copies = [copy for copy in folder.iterdir() if (copy / MANIFEST).exists()]
    copies.sort(key=lambda copy: copy.stat().st_mtime_ns, reverse=True)
    for copy in copies[COPIES_KEPT:]:
        with tempfile.TemporaryDirectory(prefix=f"{copy.name}.", dir=folder) as scratch:
            copy.rename(Path(scratch, copy.name))  # it vanishes at once, then its files are deleted


def _fetch(store: Store, place: str, files: Mapping[str, str], target: Path) -> None:
    """Copy and verify a version's files, given by name with their digests. The rename at the end
    makes the folder appear complete to other processes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as scratch:
        whole = Path(scratch, target.name)
        whole.mkdir()
        for name, expected in files.items():
            with (whole / name).open("wb") as file:
                file.writelines(_verified(store, f"{place}/{name}", expected))
        try:
            whole.rename(target)
        except OSError:
            if not (target / MANIFEST).exists():  # no other process was first
                raise


def publish_folder(store: Store, folder: Path, version: str) -> str:
    """Copy a finished folder into the store, manifest last, unless the version exists. Returns
    `manifest_digest`.
    """
    if not store.exists(f"{version}/{MANIFEST}"):
        manifest = (folder / MANIFEST).read_bytes()
        place = files_of(version, hashlib.sha256(manifest).hexdigest())
        for path in sorted(folder.iterdir()):
            if path.is_file():
                store.put_if_absent(f"{place}/{path.name}", path.read_bytes(), durable=True)
        store.put_if_absent(f"{version}/{MANIFEST}", manifest, durable=True)
    digest = manifest_digest(store, version)
    _delete_others(store, version, files_of(version, digest))
    return digest


def _delete_others(store: Store, version: str, place: str) -> None:
    """Delete the files of trainers that were killed, or too late."""
    folders = {keys.folder_of(key) for key in store.list(f"{version}/")}
    for folder in folders - {version, place}:
        store.delete_prefix(f"{folder}/")


def manifest_digest(store: Store, version: str) -> str:
    """The SHA-256 of a complete version's manifest, which holds the digests of all its files.
    Raises NotFound.
    """
    return hashlib.sha256(store.get(f"{version}/{MANIFEST}")).hexdigest()
