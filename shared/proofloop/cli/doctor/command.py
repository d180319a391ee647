"""`proofloop doctor`: looks at this machine and says what would go wrong, and what to do about
it.
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

from proofloop.bus import open_dead_letters
from proofloop.cli.common import JsonOption, StoreOption, emit, open_engines, open_store
from proofloop.cli.doctor.findings import Finding, found_of
from proofloop.cli.doctor.questions import ask_roles
from proofloop.cli.files import is_curriculum, read_curriculum, read_run
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import Models, Problems, RoleTraining, RunEngine, RunSpec, Training
from proofloop.config.settings import load_settings
from proofloop.engine import installed_engines
from proofloop.errors import BusError, ConfigError, ProofloopError, install_hint
from proofloop.method.domains import domain_names, load_domain
from proofloop.method.prompts import load_pack, pack_names
from proofloop.pipeline.embedded import WALK_ROLES, planned_proofs
from proofloop.pipeline.services import roles_of
from proofloop.schema.records import MODEL_ROLES
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from proofloop.worker.runtime import load_role

ENOUGH_DISK_GB = 2.0
"""What the demo's store and a CPU build of torch need, roughly."""


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A run.toml or a curriculum to check as well, by real calls to its engine."
        ),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait", min=1, max=86400, help="Seconds that the roles of a run may take to answer."
        ),
    ] = 300.0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check Python, the installed services and engines, torch and its GPUs, the store, the broker
    and the disk.

    With a run's file also its engine and models: each role is asked a real question about the first
    problem, sampled as in the run, and its answer is read as in the run. With a curriculum's file
    its engine is asked for one token.
    """
    findings = [*_machine(), *_packages(), _store(store), *_broker()]
    if file is not None:
        findings += list(_file(file, store, wait_s))
    emit([asdict(finding) for finding in findings], as_json=as_json)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def _machine() -> Iterator[Finding]:
    yield Finding(
        "python",
        "ok",
        f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores",
    )
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    enough = free > ENOUGH_DISK_GB
    yield Finding(
        "disk",
        "ok" if enough else "warning",
        f"{free:.1f} GB free here",
        "" if enough else f"keep {ENOUGH_DISK_GB:.0f} GB free",
    )


def _packages() -> Iterator[Finding]:
    installed = {point.name for point in entry_points(group="proofloop.roles")}
    yield roles_found(installed, has_broker=load_settings().broker is not None)
    yield Finding("engines", "ok", ", ".join(installed_engines()))
    yield _torch()
    yield _named("domains", domain_names(), load_domain)
    yield _named("prompt packs", pack_names(), load_pack)


def _named(what: str, names: Collection[str], load: Callable[[str], object]) -> Finding:
    """What is installed by name, once each could be loaded."""
    try:
        for name in names:
            load(name)
    except ConfigError as error:
        return Finding(what, "broken", error.problem, error.hint)
    return Finding(what, "ok", ", ".join(names))


def roles_found(installed: Collection[str], *, has_broker: bool) -> Finding:
    """On a broker one role is enough: the others are other processes."""
    missing = sorted({*WALK_ROLES, "trainer"} - {*installed})
    is_enough = not missing or (has_broker and installed)
    found = ", ".join(sorted(installed)) or "none"
    return (
        Finding("roles", "ok", found)
        if is_enough
        else Finding("roles", "warning", found, install_hint(*missing))
    )


def _torch() -> Finding:
    """The trainer says what torch sees: it alone may load it."""
    if importlib.util.find_spec("torch") is None:
        return Finding(
            "torch", "warning", "missing", "only the trainer and the local engine need it"
        )
    try:
        devices = [
            point.load()() for point in entry_points(group="proofloop.commands", name="device")
        ]
    except (
        ImportError,
        OSError,
    ) as error:  # a library of the system that is missing, or of another version
        return Finding("torch", "broken", f"cannot be loaded: {error}", "install torch again")
    return Finding(
        "torch", "ok", "; ".join(devices) or "installed; proofloop-trainer would say what it sees"
    )


def _store(folder: Path | None) -> Finding:
    settings = load_settings()
    where = folder or settings.store
    if (folder or settings.s3_endpoint is None) and not where.exists():
        return Finding("store", "ok", f"{where.absolute()} (not there yet; made when first used)")
    try:
        store = open_store(folder)
        began = time.perf_counter()
        if isinstance(store, LocalStore):
            with tempfile.NamedTemporaryFile(dir=store.root) as file:
                os.fsync(file.fileno())
            did = "a synced write takes"
        else:
            store.exists("doctor")
            did = "keeps the first of two writers; a look takes"
        return Finding(
            "store", "ok", f"{store}, {did} {1000 * (time.perf_counter() - began):.1f} ms"
        )
    except (ProofloopError, OSError) as error:
        problem, _, hint = str(error).partition("\nhint: ")
        return Finding(
            "store",
            "broken",
            problem,
            hint or "choose another with --store, PROOFLOOP_STORE or PROOFLOOP_S3_ENDPOINT",
        )


def _broker() -> Iterator[Finding]:
    """The broker, if one is set, and what waits in it."""
    settings = load_settings()
    if settings.broker is None:
        yield Finding("broker", "ok", "none set: `proofloop run` does everything in one process")
        return
    try:
        depths = open_dead_letters(settings).depths()
    except ProofloopError as error:
        problem, _, hint = str(error).partition("\nhint: ")
        yield Finding("broker", "broken", problem, hint or "start it, or correct PROOFLOOP_BROKER")
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
        "see `proofloop dead list`" if dead else "",
    )


def workers_found(consumers: Mapping[str, int]) -> Finding:
    """How many workers the broker knows of each role; the trainer is needed by some runs only."""
    found = ", ".join(f"{role} {consumers.get(role, 0)}" for role in (*WALK_ROLES, "trainer"))
    missing = [role for role in WALK_ROLES if not consumers.get(role)]
    if not missing:
        return Finding("workers", "ok", found)
    start = "; ".join(f"proofloop serve {role}" for role in missing)
    return Finding("workers", "warning", found, f"a run waits until these are started: {start}")


def _run_workers(spec: RunSpec) -> Iterator[Finding]:
    """The roles that the run needs and no worker of the broker serves."""
    settings = load_settings()
    if settings.broker is None:
        return
    try:
        unserved = open_dead_letters(settings).unserved(roles_of(spec))
    except (BusError, ConfigError):
        return  # the finding about the broker says so
    if unserved:
        start = "; ".join(f"proofloop serve {role}" for role in unserved)
        found = f"{spec.name} would wait for {', '.join(unserved)}: no worker serves them"
        yield Finding("run's workers", "warning", found, f"start them: {start}")


def _file(file: Path, folder: Path | None, wait_s: float) -> Iterator[Finding]:
    what = "run file"
    try:
        is_run = not is_curriculum(file)
        if not is_run:
            what = "curriculum"
            curriculum = read_curriculum(file)
            for point in entry_points(group="proofloop.commands", name="check-curriculum"):
                point.load()(curriculum)
            spec = _first_calls(curriculum)
            found = f"{len(curriculum.stages)} stages from {curriculum.start}"
        else:
            spec = read_run(file)
            found = (
                f"{planned_proofs(spec)} proofs, n={spec.labeling.n} m={spec.labeling.m}"
                f" k={spec.labeling.k}"
            )
            if spec.training.roles:
                load_role("trainer").check(spec)
        load_pack(spec.prompts, spec.base)
        yield Finding(what, "ok", f"{spec.name}: engine {spec.engine.kinds}, {found}")
        if is_run:
            yield from _run_workers(spec)
        what = "engine"
        engines = open_engines(open_store(folder))
        try:
            began = time.perf_counter()
            engines.check(spec)
            yield Finding(
                "engine", "ok", f"every model answered within {time.perf_counter() - began:.1f} s"
            )
            if is_run:
                what = "answers"
                yield from _answers(engines, spec, wait_s)
        finally:
            engines.close()
    except ProofloopError as error:
        problem, _, hint = str(error).partition("\nhint: ")
        yield Finding(what, "broken", problem, hint)


def _answers(engines: Engines, spec: RunSpec, wait_s: float) -> Iterator[Finding]:
    """What each role answers to a real question."""
    print(
        f"doctor asks each role a real question and waits {wait_s:g} s at most (--wait)",
        file=sys.stderr,
    )
    question = next(problems_of(spec)).question
    for answer in ask_roles(engines, spec, question, wait_s):
        yield found_of(answer, spec, wait_s)


def _first_calls(spec: CurriculumSpec) -> RunSpec:
    """A run with the curriculum's engine, its first model in all roles, and the need for tokens."""
    return RunSpec(
        name=spec.name,
        problems=Problems(file=spec.files.problems) if spec.files else Problems(domain=spec.domain),
        prompts=spec.prompts,
        engine=RunEngine(**dict(spec.engine)),
        sampling=spec.sampling,
        models=Models(**dict.fromkeys(MODEL_ROLES, spec.start)),
        training=Training(verifier=RoleTraining(steps=1)),
        base=spec.base,
    )
