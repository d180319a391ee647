"""Which model version each role serves in a run.

It is a log that only grows: promote, rollback and an event that comes twice or late are all safe.

A version is named by the key prefix of its files in the store ("runs/demo/models/verifier/000003"), or by any name the
engine knows.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

from proofloop import keys
from proofloop.errors import ConfigError, CorruptObject, NotFound
from proofloop.records import ModelRole, Record
from proofloop.store import LocalStore, Store, get_record

MANIFEST = "manifest.json"
"""Written last: a version without it was never finished and is never served."""

PUBLISHED = "published"
"""How the reason of a version begins that the trainer brought."""

ROLLED_BACK = "rolled back after"
"""How the reason of a rollback begins; what follows makes it unique."""


class Served(Record):
    """One line of the log: this version went into service because of that."""

    version: str
    reason: str


def served_log(store: Store, run_id: str, role: ModelRole) -> list[Served]:
    """The versions that were put in service, oldest first."""
    return [get_record(store, key, Served) for key in store.list(keys.served(run_id, role))]


def last_served(store: Store, run_id: str, role: ModelRole) -> str | None:
    """The version in service, by the log's last line alone; None while there is no line."""
    last = deque(store.list(keys.served(run_id, role)), maxlen=1)
    return get_record(store, last[0], Served).version if last else None


def put_in_service(store: Store, run_id: str, role: ModelRole, version: str) -> None:
    """Append a published version to the log, unless it was adopted before, even if it was rolled back since."""
    while not is_adopted(log := served_log(store, run_id, role), version):
        _append(store, run_id, role, version, f"{PUBLISHED} {version}", place=len(log))


def is_adopted(log: Iterable[Served], version: str) -> bool:
    """Whether this published version, or a later one, went into service: its event came twice, or late.

    The names of a role's versions sort as their numbers do, which have zeros in front.
    """
    return any(line.reason.startswith(PUBLISHED) and line.version >= version for line in log)


def _append(store: Store, run_id: str, role: ModelRole, version: str, reason: str, *, place: int) -> bool:
    """Write the line at this place; false if another writer was first."""
    line = Served(version=version, reason=reason)
    key = f"{keys.served(run_id, role)}{place:06d}.json"
    return store.put_if_absent(key, line.model_dump_json().encode(), durable=True)


def published_versions(store: Store, run_id: str, role: ModelRole) -> list[str]:
    """The complete versions of a role in the store, oldest first."""
    listed = store.list(keys.models(run_id, role))
    return [key.removesuffix(f"/{MANIFEST}") for key in listed if key.endswith(f"/{MANIFEST}")]


Prepare = Callable[[str], None]
"""Makes a version ready in the run's engine, or raises: then what served goes on serving."""


def promote(
    store: Store, run_id: str, role: ModelRole, version: str, first: str, prepare: Prepare = lambda version: None
) -> str:
    """Put a complete version in service by hand, once it is ready; its name.

    `version` may be its number; `first` is the one that the run began with.
    Raises ConfigError if there is no such version, CorruptObject if it is damaged.
    """
    published = published_versions(store, run_id, role)
    numbered = keys.model(run_id, role, int(version)) if version.isdecimal() else version
    if numbered not in [first, *published]:
        known = ", ".join([first, *published])
        raise ConfigError(f"{role} has no complete version {version!r} in run {run_id}", f"one of {known}")
    if numbered in published:
        verify_version(store, numbered)
    prepare(numbered)
    while True:
        place = len(served_log(store, run_id, role))
        if _append(store, run_id, role, numbered, f"promoted after {place}", place=place):
            return numbered


def rollback(store: Store, run_id: str, role: ModelRole, first: str, prepare: Prepare = lambda version: None) -> str:
    """Take the present version back: the one that stood before it serves again, `first` at last; its name.

    Raises ConfigError.
    """
    log = served_log(store, run_id, role)
    standing = _standing(first, log)
    if len(standing) < 2:
        raise ConfigError(
            f"{role} in run {run_id} serves its first version {first!r}", "there is nothing to roll back to"
        )
    prepare(standing[-2])
    if not _append(store, run_id, role, standing[-2], f"{ROLLED_BACK} {len(log)}", place=len(log)):
        raise ConfigError(
            f"{role} in run {run_id}: another version went into service meanwhile, nothing was rolled back",
            "see `proofloop models list`, and call again if it is still to go",
        )
    return standing[-2]


def _standing(first: str, log: list[Served]) -> list[str]:
    """The versions that nobody took back, oldest first; the last is in service. Rolling back twice goes back two."""
    versions = [first]
    for line in log:
        if line.reason.startswith(ROLLED_BACK):
            versions = versions[:-1] or [first]
        elif line.version != versions[-1]:
            versions.append(line.version)
    return versions


def manifest_files(store: Store, version: str) -> dict[str, str]:
    """SHA-256 by file name, from the version's manifest."""
    try:
        manifest = json.loads(store.get(f"{version}/{MANIFEST}"))
        return {str(entry["name"]): str(entry["sha256"]) for entry in manifest["files"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptObject(f"{version}/{MANIFEST} cannot be read: {error}") from error


def verify_version(store: Store, version: str) -> None:
    """Raises CorruptObject naming the file whose digest is not the manifest's."""
    for name, expected in manifest_files(store, version).items():
        for _ in _verified(store, f"{version}/{name}", expected):
            pass


def _verified(store: Store, key: str, expected: str) -> Iterator[bytes]:
    """A file of a version, piece by piece: a shard may be larger than memory. Raises CorruptObject at the end."""
    found = hashlib.sha256()
    try:
        for chunk in store.chunks(key):
            found.update(chunk)
            yield chunk
    except NotFound as error:
        raise CorruptObject(f"{key} is missing") from error
    if found.hexdigest() != expected:
        raise CorruptObject(f"{key} has digest {found.hexdigest()[:12]}, its manifest says {expected[:12]}")


@lru_cache(maxsize=1024)  # it reads what is installed, and is asked at every call of a model
def is_beside_run_file(version: str) -> bool:
    """Whether `version_folder` looks for it in the folder of the run file."""
    is_known = version.startswith("runs/") or entry_points(group="proofloop.models", name=version)
    return not is_known and not Path(version).is_absolute()


def named_folder(name: str, base: Path) -> Path:
    """A model that comes with an installed package (entry points `proofloop.models`), or a folder, from `base` on."""
    for point in entry_points(group="proofloop.models", name=name):
        return Path(point.load()())
    return base / name


def version_folder(store: Store, cache: Path, version: str, base: Path = Path()) -> Path:
    """A local folder with the version's files: where they lie already, or a verified copy in `cache`.

    A name that is no version of a run is that of a `named_folder`.
    """
    if not version.startswith("runs/"):
        return named_folder(version, base)
    if isinstance(store, LocalStore):
        return store.path(version)
    target = cache / version
    if not (target / MANIFEST).exists():
        _fetch(store, version, target)
    return target


def _fetch(store: Store, version: str, target: Path) -> None:
    """Copy a version's files, verified, to a folder that appears whole: other processes look there too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as scratch:
        whole = Path(scratch, target.name)
        whole.mkdir()
        for name, expected in manifest_files(store, version).items():
            with (whole / name).open("wb") as file:
                file.writelines(_verified(store, f"{version}/{name}", expected))
        (whole / MANIFEST).write_bytes(store.get(f"{version}/{MANIFEST}"))
        try:
            whole.rename(target)
        except OSError:
            if not (target / MANIFEST).exists():  # no other process was first
                raise


def publish_folder(store: Store, folder: Path, version: str) -> str:
    """Copy a finished folder into the store, manifest last, unless it is there; the manifest's digest."""
    if not store.exists(f"{version}/{MANIFEST}"):
        store.delete_prefix(f"{version}/")  # what a killed trainer began
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
        for name in [*names, MANIFEST]:
            store.put_if_absent(f"{version}/{name}", (folder / name).read_bytes(), durable=True)
    return manifest_digest(store, version)


def manifest_digest(store: Store, version: str) -> str:
    """The SHA-256 of a complete version's manifest: it names the digests of all the version's files."""
    return hashlib.sha256(store.get(f"{version}/{MANIFEST}")).hexdigest()
