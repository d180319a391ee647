"""Creates a run in the store, or finds it there to be resumed."""

from __future__ import annotations

from collections.abc import Sequence

from proofloop.config.given_files import given_cases
from proofloop.config.run_file import RunSpec, check_has_checker
from proofloop.engine.info import ADAPTER
from proofloop.errors import ConfigError
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.runs.fine_tuning.demonstrations import file_portions, keep_demonstrations
from proofloop.runs.given import keep_given, keep_portions
from proofloop.runs.model_registry import newest_step
from proofloop.runs.spec import (
    check_prompts,
    check_run,
    find_spec,
    keep_change,
    keep_creation,
    keep_problems,
)
from proofloop.schema import keys
from proofloop.schema.given import GivenPortion
from proofloop.store import Store, put_new, put_record
from proofloop.store.model_folders import MANIFEST, manifest_files, verify_version


def create_run(
    store: Store,
    spec: RunSpec,
    *,
    resume: bool,
    pack: PromptPack | None = None,
    portions: Sequence[GivenPortion] = (),
) -> RunSpec:
    """Store the run's spec, its prompts (`pack`, or the pack that the spec names) and its given
    cases (`portions`, or those of the spec's file) or demonstrations.

    A resumed run is found in the store; changes that are allowed are stored. Raises ConfigError,
    and CorruptObject when a resumed run's checkpoint is damaged.
    """
    check_has_checker(spec)
    cases = given_cases(spec)  # a bad row is named before anything is stored
    demonstrations = file_portions(store, spec, pack)
    if find_spec(store, spec.name) is None:
        check_sources(store, spec)
    spec = _keep_run(store, spec, resume, pack)
    keep_demonstrations(store, spec, demonstrations)
    if spec.problems.material:
        keep_portions(store, spec.name, portions)
    else:
        keep_given(store, spec, cases)
    return spec


def _keep_run(store: Store, spec: RunSpec, resume: bool, pack: PromptPack | None) -> RunSpec:
    while True:
        if find_spec(store, spec.name) is None and _put_spec(store, spec, pack):
            if keep_problems(store, spec):
                return spec
            resume = True  # another process stored other problems meanwhile: compare with them
        check_run(store, spec, resume=resume, pack=pack)  # another process may have been first
        check_training(store, spec)
        if keep_change(store, spec):
            return spec


def _put_spec(store: Store, spec: RunSpec, pack: PromptPack | None) -> bool:
    """Store the creation and the prompts, then the spec; false if another process stored the spec
    first.
    """
    prompts = pack or load_pack(spec.prompts, spec.base)
    keep_creation(store, spec.name)
    put_record(store, keys.prompts(spec.name), prompts, durable=True)
    check_prompts(store, spec, pack)  # a process that died here may have left other prompts
    return put_new(store, keys.run_spec(spec.name), spec, durable=True)


def check_sources(store: Store, spec: RunSpec) -> None:
    """Raise ConfigError if the store lacks a version or a run that the training reads.

    Checked before the run is stored: these names are frozen with it.
    """
    for role in spec.training.roles:
        _check_can_have_adapter(store, spec, f"[models] {role}", spec.model_of(role))
        if reference := spec.training.of(role).reference:
            check_version(store, f"[training.{role}] reference", reference)
    if spec.fine_tuning:
        check_version(store, "[fine_tuning] start", spec.fine_tuning.start)
        _check_can_have_adapter(store, spec, "[fine_tuning] start", spec.fine_tuning.start)
        for name, _ in spec.fine_tuning.sources:
            if find_spec(store, name) is None:
                raise ConfigError(
                    f"[fine_tuning] runs: the store {store} has no run {name!r}",
                    "see `proofloop runs list`",
                )


def _check_can_have_adapter(store: Store, spec: RunSpec, setting: str, name: str) -> None:
    """Raise ConfigError for a new adapter on a version in the store: the engine must find the base
    model wherever the adapter goes.
    """
    if not spec.lora or not keys.is_version(name) or not store.exists(f"{name}/{MANIFEST}"):
        return
    if ADAPTER not in manifest_files(store, name):
        raise ConfigError(
            f"[lora] and {setting} = {name!r} do not go together: the version has all weights, and"
            " an adapter needs a base model in a folder",
            "copy the version's files to a folder and name that, or leave [lora] out",
        )


def check_version(store: Store, setting: str, name: str) -> None:
    """Raise ConfigError if a setting names a version of a run that the store lacks."""
    if keys.is_version(name) and not store.exists(f"{name}/{MANIFEST}"):
        raise ConfigError(
            f"{setting}: the store {store} has no version {name!r}", "see `proofloop models list`"
        )


def check_training(store: Store, spec: RunSpec) -> None:
    """Raise CorruptObject if a checkpoint that training continues from is damaged.

    Checked as the run begins: the trainer would find it only after an hour of labels.
    """
    for role in spec.training.roles:
        steps = newest_step(store, spec.name, role)
        if 0 < steps < spec.training.of(role).steps:
            verify_version(store, keys.checkpoint(spec.name, role, steps))
