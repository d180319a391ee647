"""`proofloop models`: which version of which role's model serves, and changing that by hand."""

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
    """Every complete version of every role, and which one serves."""
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
    version: Annotated[str, typer.Argument(help="As `models list` shows it, or its number.")],
    run: RunOption,
    if_run_exists: Annotated[
        bool,
        typer.Option(
            "--if-run-exists", help="Succeed with a message where the run is not posed yet."
        ),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Put a version in service for one role: checked against its manifest, and loaded where the
    engine loads versions.

    New proofs use it; running work ends on the old one, which goes on serving if the new one cannot
    be loaded.
    """
    data = open_store(store, must_exist=True)
    checked = _role(role)
    if if_run_exists and find_spec(data, run) is None:
        begins = f"it will begin with the {role} that its run file names"
        print(
            f"nothing to promote: there is no run {run!r} in {data} yet; {begins}", file=sys.stderr
        )
        return
    spec = need_run(data, run)
    with _preparing(data, spec, checked) as prepare:
        served = registry.promote(data, run, checked, version, spec.model_of(checked), prepare)
    print(f"{role} of {run} serves {served}")


@app.command("rollback")
def rollback(role: RoleArgument, run: RunOption, store: StoreOption = None) -> None:
    """Put the version that served before back in service."""
    data = open_store(store, must_exist=True)
    spec = need_run(data, run)
    checked = _role(role)
    with _preparing(data, spec, checked) as prepare:
        served = registry.rollback(data, run, checked, spec.model_of(checked), prepare)
    print(f"{role} of {run} serves {served}")


@contextmanager
def _preparing(store: Store, spec: RunSpec, role: ModelRole) -> Iterator[registry.Prepare]:
    engines = open_engines(store)
    try:
        yield lambda version: engines.prepare(spec, role, version)
    finally:
        engines.close()


def _role(name: str) -> ModelRole:
    for role in MODEL_ROLES:
        if role == name:
            return role
    raise ConfigError(f"role {name!r} has no model", f"one of {', '.join(MODEL_ROLES)}")
