"""The files of a model version: in the store, in local copies, or in a folder that the user names.

A version's files are in a folder below its key, which the first digits of the manifest's digest
name. Two trainers that publish one version therefore never mix their files, and the manifest beside
the folder decides: it is written last, by the first of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

from proofloop.engine.info import ADAPTER, is_adapter
from proofloop.errors import ConfigError, CorruptObject, NotFound
from proofloop.schema import keys
from proofloop.store.base import Store
from proofloop.store.local import LocalStore

MANIFEST = "manifest.json"
"""The version's list of files, written last. A version without it is incomplete and never
served. The folder of the files holds a copy.
"""

FILE_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
"""The names that a manifest may contain. A path would write outside the folder of the copies."""

COPIES_KEPT = 4
"""The most local copies of one role's versions in a run: the last used ones."""


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


def base_folder(adapter: Path) -> Path:
    """The folder of the model that an adapter belongs to. Raises ConfigError if the adapter does
    not name it.
    """
    try:
        name = json.loads((adapter / ADAPTER).read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{adapter / ADAPTER} cannot be read: {error!r}", "copy the adapter again"
        ) from error
    if not isinstance(name, str):
        raise ConfigError(
            f"{adapter / ADAPTER} does not name the adapter's base model",
            "set base_model_name_or_path to the folder of the base model",
        )
    return named_folder(name, Path())


def whole_model(folder: Path) -> Path:
    """The folder with all weights: the base model's if the folder holds an adapter."""
    return base_folder(folder) if is_adapter(folder) else folder


def model_name(folder: Path) -> str:
    """The name of a folder that finds it in other processes too: an installed model's, else the
    absolute path.
    """
    for point in entry_points(group="proofloop.models"):
        if Path(point.load()()).resolve() == folder.resolve():
            return point.name
    return str(folder.absolute())


def require_model(folder: Path) -> None:
    """Raise ConfigError unless the folder holds a model; a name on the Hugging Face hub is not
    enough.
    """
    folder = whole_model(folder)
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
