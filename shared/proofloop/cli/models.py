"""`proofloop models`: lists model versions, and puts one in service by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_engines, open_store
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.runs import model_registry as registry
from proofloop.runs.spec import find_spec
from proofloop.schema.records import MODEL_ROLES, ModelRole
from proofloop.store import Store

app = typer.Typer(help="Model versions of a run, one role at a time.", no_args_is_help=True)

RunOption = Annotated[str, typer.Option("--run", help="The run's name.")]
RoleArgument = Annotated[str, typer.Argument(help="generator, verifier or meta_verifier.")]


@app.command("list")
def list_models(run: RunOption, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the versions of each role.

    Only complete versions are listed; `serves` marks the one in service.
    """
    data = open_store(store, must_exist=True)
    spec = need_run(data, run)
    rows = []
    for role in MODEL_ROLES:
        log = registry.served_log(data, run, role)
        serving = log[-1].version if log else spec.model_of(role)
        for version in [spec.model_of(role), *registry.published_versions(data, run, role)]:
            rows.append({"role": role, "version": version, "serves": version == serving})
    emit(rows, as_json=as_json)


@app.command("promote")
def promote(
    role: RoleArgument,
    version: Annotated[str, typer.Argument(help="A version of `models list`, or its number.")],
    run: RunOption,
    if_run_exists: Annotated[
        bool,
        typer.Option("--if-run-exists", help="Exit with code 0 if the run does not exist yet."),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Put a version in service for one role.

    Its files are checked against its manifest, and an engine that loads versions loads it. New
    proofs use the new version; running work finishes with the old one. If loading fails, the old
    version stays in service.
    """
    data = open_store(store, must_exist=True)
    checked = _role(role)
    if if_run_exists and find_spec(data, run) is None:
        print(
            f"nothing to promote: no run named {run!r} in {data} yet; it will start with the {role}"
            " of its run file",
            file=sys.stderr,
        )
        return
    spec = need_run(data, run)
    with _preparing(data, spec, checked) as prepare:
        served = registry.promote(data, run, checked, version, spec.model_of(checked), prepare)
    print(f"{role} of {run} serves {served}")


@app.command("rollback")
def rollback(role: RoleArgument, run: RunOption, store: StoreOption = None) -> None:
    """Put the previous version of one role back in service."""
    data = open_store(store, must_exist=True)
    spec = need_run(data, run)
    checked = _role(role)
    with _preparing(data, spec, checked) as prepare:
        served = registry.rollback(data, run, checked, spec.model_of(checked), prepare)
    print(f"{role} of {run} serves {served}")


@contextmanager
def _preparing(store: Store, spec: RunSpec, role: ModelRole) -> Iterator[registry.Prepare]:
    with open_engines(store) as engines:
        yield lambda version: engines.prepare(spec, role, version)


def _role(name: str) -> ModelRole:
    for role in MODEL_ROLES:
        if role == name:
            return role
    raise ConfigError(f"role {name!r} has no model", f"use one of: {', '.join(MODEL_ROLES)}")
