"""`proofloop doctor`: checks this machine, and a run or curriculum file, and reports problems with
hints.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api.files import is_curriculum, read_curriculum, read_run
from proofloop.bus import open_dead_letters
from proofloop.cli.common import JsonOption, StoreOption, emit, open_engines, open_store
from proofloop.cli.doctor.findings import Finding, finding_of
from proofloop.cli.doctor.questions import TrialAnswer, ask_roles
from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import RunSpec
from proofloop.config.settings import load_settings
from proofloop.curriculum.compose import example_of
from proofloop.curriculum.controller import check
from proofloop.engine import installed_engines
from proofloop.errors import BusError, ConfigError, HintedError, ProofloopError, install_hint
from proofloop.method.domains import domain_names, load_domain
from proofloop.method.prompts import load_pack, pack_names
from proofloop.plugins import plugin_error
from proofloop.runs.flow import UNFILLED_HINT, unfilled
from proofloop.runs.planned import planned_proofs, roles_of
from proofloop.schema.records import PIPELINE_ROLES
from proofloop.store import LocalStore, is_folder
from proofloop.worker.engine_pool import Engines
from proofloop.worker.roles import load_role

ENOUGH_DISK_GB = 2.0
"""Enough for the demo's store and a CPU build of torch."""


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A run file or curriculum file to check too, with real calls to its engine."
        ),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait", min=1, max=86400, help="The timeout in seconds for the answers of all roles."
        ),
    ] = 300.0,
    services: Annotated[
        bool, typer.Option("--services", help="Require a broker, as services do.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, and a run or curriculum file.

    The checks: Python, installed roles and engines, torch and GPUs, store, broker, disk. With a run
    file, also check its engine and models: each role answers a real prompt about the first problem,
    sampled and read as in the run. With a curriculum file, request one token from its engine.
    """
    findings = [_python(), _disk(store), *_packages(), _store(store), *_broker(is_needed=services)]
    if file is not None:
        findings += list(_file(file, store, wait_s))
    emit([asdict(finding) for finding in findings], as_json=as_json)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores"
    return Finding("python", "ok", found)


def _disk(folder: Path | None) -> Finding:
    """The free space where the store's folder is or will be; here if the store is no folder."""
    settings = load_settings()
    store = folder or (settings.store if is_folder(settings) else Path())
    where = next(path for path in (store.absolute(), *store.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(where).free / 1e9
    enough = free > ENOUGH_DISK_GB
    return Finding(
        "disk",
        "ok" if enough else "warning",
        f"{free:.1f} GB free in {where}",
        "" if enough else f"free at least {ENOUGH_DISK_GB:.0f} GB, or choose another --store",
    )


def _packages() -> Iterator[Finding]:
    installed = {point.name for point in entry_points(group="proofloop.roles")}
    if importlib.util.find_spec("trl") is None:
        installed.discard("trainer")  # its code may be here without its libraries
    yield roles_found(installed, has_broker=load_settings().broker is not None)
    yield Finding("engines", "ok", ", ".join(installed_engines()))
    yield _torch()
    yield _named("domains", domain_names(), load_domain)
    yield _named("prompt packs", pack_names(), load_pack)


def _named(what: str, names: Collection[str], load: Callable[[str], object]) -> Finding:
    """The names of installed parts that can be loaded."""
    try:
        for name in names:
            load(name)
    except ConfigError as error:
        return Finding(what, "broken", error.problem, error.hint)
    return Finding(what, "ok", ", ".join(names))


def roles_found(installed: Collection[str], *, has_broker: bool) -> Finding:
    """The installed roles. With a broker one is enough, because other processes serve the rest."""
    missing = sorted({*PIPELINE_ROLES, "trainer"} - {*installed})
    found = ", ".join(sorted(installed)) or "none"
    if not missing or (has_broker and installed):
        return Finding("roles", "ok", found)
    return Finding("roles", "warning", found, install_hint(*missing))


def _torch() -> Finding:
    """The version of torch and its GPUs. Only the trainer may import torch, so the trainer reports
    it.
    """
    if importlib.util.find_spec("torch") is None:
        hint = f"needed only by the trainer and the local engine; {install_hint('trainer')}"
        return Finding("torch", "warning", "not installed", hint)
    try:
        devices = [
            point.load()() for point in entry_points(group="proofloop.commands", name="device")
        ]
    except (ImportError, OSError) as error:  # a missing system library, or a wrong version of one
        return Finding("torch", "broken", f"cannot be imported: {error}", "reinstall torch")
    return Finding("torch", "ok", "; ".join(devices) or "installed, without proofloop-trainer")


def _store(folder: Path | None) -> Finding:
    settings = load_settings()
    where = folder or settings.store
    if (folder or is_folder(settings)) and not where.exists():
        return Finding("store", "ok", f"{where.absolute()} (does not exist yet; made on first use)")
    try:
        store = open_store(folder)
        began = time.perf_counter()
        if isinstance(store, LocalStore):
            with tempfile.NamedTemporaryFile(dir=store.root) as file:
                file.write(b"doctor")  # an empty file takes no room on a full disk
                file.flush()
                os.fsync(file.fileno())
            checked = "a synced write takes"
        else:
            store.exists("doctor")
            checked = "conditional writes work; a request takes"
        return Finding(
            "store", "ok", f"{store}: {checked} {1000 * (time.perf_counter() - began):.1f} ms"
        )
    except (ProofloopError, OSError) as error:
        default = "choose another store by --store, PROOFLOOP_STORE or PROOFLOOP_S3_ENDPOINT"
        return _broken("store", error, default)


def _broken(what: str, error: Exception, default_hint: str = "") -> Finding:
    """The finding for an error, with the error's own hint if it has one."""
    if isinstance(error, HintedError):
        return Finding(what, "broken", error.problem, error.hint or default_hint)
    return Finding(what, "broken", str(error), default_hint)


def _broker(*, is_needed: bool) -> Iterator[Finding]:
    """The broker, if one is set or needed, and its queues."""
    settings = load_settings()
    if settings.broker is None and not is_needed:
        found = "PROOFLOOP_BROKER is not set: `proofloop run` runs all services in one process"
        yield Finding("broker", "ok", found)
        return
    try:
        depths = open_dead_letters(settings).depths()
    except ProofloopError as error:
        yield _broken("broker", error, "start the broker, or correct PROOFLOOP_BROKER")
        return
    yield Finding(
        "broker",
        "ok",
        "; ".join(f"{d.role} {d.ready} ready, {d.later} later" for d in depths) or "no queues yet",
    )
    yield workers_found({depth.role: depth.consumers for depth in depths})
    dead = sum(depth.dead for depth in depths)
    yield Finding(
        "dead letters",
        "warning" if dead else "ok",
        str(dead),
        "list them with `proofloop dead list`" if dead else "",
    )


def workers_found(consumers: Mapping[str, int]) -> Finding:
    """The number of workers of each role. A missing trainer is fine: not every run trains."""
    found = ", ".join(f"{role} {consumers.get(role, 0)}" for role in (*PIPELINE_ROLES, "trainer"))
    missing = [role for role in PIPELINE_ROLES if not consumers.get(role)]
    if not missing:
        return Finding("workers", "ok", found)
    start = "; ".join(f"proofloop serve {role}" for role in missing)
    return Finding("workers", "warning", found, f"start the missing workers: {start}")


def _run_workers(spec: RunSpec) -> Iterator[Finding]:
    """A warning if the run needs roles that no worker serves."""
    settings = load_settings()
    if settings.broker is None:
        return
    try:
        unserved = open_dead_letters(settings).unserved(roles_of(spec))
    except (BusError, ConfigError):
        return  # reported by `_broker`
    if unserved:
        start = "; ".join(f"proofloop serve {role}" for role in unserved)
        found = f"no worker serves {', '.join(unserved)}: {spec.name} would wait for them"
        yield Finding("workers of the run", "warning", found, f"start them: {start}")


def _file(file: Path, folder: Path | None, wait_s: float) -> Iterator[Finding]:
    what = "run file"
    try:
        is_run = not is_curriculum(file)
        if not is_run:
            what = "curriculum"
            curriculum = read_curriculum(file)
            check(curriculum)
            example = example_of(curriculum, "verifier")
            spec = example.model_copy(update={"name": curriculum.name})
            found = f"{len(curriculum.stages)} stages from {curriculum.start}"
        else:
            spec = read_run(file)
            found = (
                f"{planned_proofs(spec)} proofs, n={spec.labeling.n} m={spec.labeling.m}"
                f" k={spec.labeling.k}"
            )
            if "trainer" in roles_of(spec):
                load_role("trainer").check(spec)
        load_pack(spec.prompts, spec.base)
        yield Finding(what, "ok", f"{spec.name}: engine {spec.engine.kinds}, {found}")
        if is_run:
            yield from _run_workers(spec)
            for problem in unfilled(spec):
                yield Finding("flow", "warning", problem, UNFILLED_HINT)
        what = "engine"
        with open_engines(open_store(folder)) as engines:
            began = time.perf_counter()
            print("checking the models", file=sys.stderr)
            engines.check(spec, roles=spec.asked_roles)
            yield Finding(
                "engine", "ok", f"every model answered within {time.perf_counter() - began:.1f} s"
            )
            if is_run and spec.asked_roles:
                what = "answers"
                yield from _answers(engines, spec, wait_s)
    except ProofloopError as error:
        yield _broken(what, error)
    except Exception as error:
        if (found_error := plugin_error(error)) is None:
            raise
        yield _broken(what, found_error)


def _answers(engines: Engines, spec: RunSpec, wait_s: float) -> Iterator[Finding]:
    """Whether each role's answer to a real prompt is readable."""
    print(f"calling the model of each role; timeout {wait_s:g} s (--wait)", file=sys.stderr)
    question = next(problems_of(spec)).question
    for answer in ask_roles(engines, spec, question, wait_s, _show):
        yield finding_of(answer, spec, wait_s)


def _show(answer: TrialAnswer) -> None:
    """One line for a first answer: a slow model takes minutes."""
    unread = "unreadable, called once more" if answer.is_unreadable else "no whole answer"
    state = "readable" if answer.is_readable else unread
    print(f"{answer.role}: {state} after {answer.seconds:.0f} s", file=sys.stderr)
