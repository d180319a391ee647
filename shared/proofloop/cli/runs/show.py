"""`proofloop runs list` and `show`: the progress of runs and curricula."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from proofloop.cli.common import (
    EitherArgument,
    JsonOption,
    StoreOption,
    emit,
    names,
    need_run,
    open_store,
)
from proofloop.cli.runs.dead import find_letters
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import RunSpec
from proofloop.curriculum.status import (
    StageManifest,
    Status,
    all_figures,
    find_curriculum,
    manifests,
    read_status,
)
from proofloop.errors import BusError, ConfigError, CorruptObject
from proofloop.pipeline.evaluation import find_summary
from proofloop.runs.answers import Readability, Unread, readability
from proofloop.runs.figures import Figure
from proofloop.runs.labels import labels_of
from proofloop.runs.model_registry import published_versions
from proofloop.runs.planned import is_complete, posed_proofs
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES
from proofloop.store import Store


def list_runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List all runs and curricula with their progress. The state of one that this version cannot
    read is `unreadable`.
    """
    data = open_store(store, must_exist=True)
    runs = [_run_row(data, name) for name in names(data, keys.SPECS)]
    curricula = (_curriculum_row(data, name) for name in names(data, keys.CURRICULA))
    emit([*runs, *filter(None, curricula)], as_json=as_json)


def show(run: EitherArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show one run or curriculum.

    A run: its proofs by outcome and kind, its training, its figures. A curriculum: its stages,
    progress and figures.
    """
    data = open_store(store, must_exist=True)
    curriculum = find_curriculum(data, run)
    if curriculum is not None:
        _show_curriculum(data, curriculum, as_json=as_json)
        return
    spec = need_run(data, run)
    labels = list(labels_of(data, run))
    shown: dict[str, Any] = {
        **_line(data, spec),
        "outcomes": _count(label.outcome for label in labels),
        "kinds": _count(label.kind for label in labels),
        "versions": {name: len(published_versions(data, run, name)) for name in spec.trained},
        "dead_letters": count_dead(data, run),
    }
    found = readability(data, run)
    summary = find_summary(data, run)
    if as_json:
        unread = [asdict(each) for each in found.unread]
        print(
            json.dumps(
                {**shown, "unread": unread, "summary": summary.model_dump() if summary else None},
                indent=2,
            )
        )
        return
    shown |= {
        f"{role}_answers": f"{found.seen[role]}, {found.read[role]} readable{_scope(found)}"
        for role in MODEL_ROLES
        if role in found.seen
    }
    emit(
        [{"what": name.replace("_", " "), "value": _short(value)} for name, value in shown.items()],
        as_json=False,
    )
    if found.unread:
        reasons = [_unread_row(each) for each in found.unread[:MOST_REASONS]]
        emit(reasons, as_json=False, title=_unread_title(run, found))
    if summary:
        before, after = dict(summary.before), dict(summary.after)
        rows = [{"measured": name, "before": before[name], "after": after[name]} for name in before]
        emit(rows, as_json=False)


MOST_REASONS = 10


def _unread_row(unread: Unread) -> dict[str, Any]:
    return {
        "answers": unread.count,
        "of": unread.role,
        "outcome": unread.outcome,
        "why": unread.cause,
        "example": unread.example,
    }


def _unread_title(run: str, found: Readability) -> str:
    return f"unreadable or failed{_scope(found)}; `proofloop proof {run} EXAMPLE` prints one"


def _scope(found: Readability) -> str:
    return "" if found.is_whole else f" of the first {sum(found.seen.values())} answers"


def _show_curriculum(store: Store, spec: CurriculumSpec, *, as_json: bool) -> None:
    """Print the stages with their gates, the status, and the measured figures."""
    found = manifests(store, spec)
    now = read_status(store, spec)
    measured = all_figures(store, spec.name)
    if as_json:
        print(curriculum_json(spec.name, found, now, measured))
        return
    emit(
        [stage_row(stage.name, found.get(stage.name), now) for stage in spec.stages],
        as_json=False,
        title=spec.name,
    )
    emit([{"what": name.replace("_", " "), "value": value} for name, value in now], as_json=False)
    rows = [
        {"measured": f"{name} {what}", "value": each}
        for name, of in measured.items()
        for what, each in of.items()
    ]
    if rows:
        emit(rows, as_json=False)


def curriculum_json(
    name: str,
    found: Mapping[str, StageManifest],
    now: Status,
    measured: Mapping[str, Mapping[str, Figure]],
) -> str:
    stages = {stage: manifest.model_dump() for stage, manifest in found.items()}
    figures = {
        version: {what: each.model_dump() for what, each in of.items()}
        for version, of in measured.items()
    }
    return json.dumps(
        {"run": name, "status": now.model_dump(), "stages": stages, "figures": figures}, indent=2
    )


def stage_row(name: str, manifest: StageManifest | None, now: Status) -> dict[str, Any]:
    if manifest is None:
        planned = f" of {now.planned_steps}" if now.planned_steps else ""
        running = f"{now.steps}{planned} steps" if now.steps else "next"
        state = running if name == now.running else "waits"
        return {"stage": name, "state": state, "seconds": None, "gate": None, "serves": None}
    gates = "; ".join(f"{gate.before:.3f} -> {gate.after:.3f}" for gate in manifest.gates)
    return {
        "stage": name,
        "state": "done",
        "seconds": round(manifest.seconds),
        "gate": gates or None,
        "serves": ", ".join(sorted(manifest.serves)) or None,
    }


def count_dead(store: Store, run: str) -> int:
    """The number of a run's dead letters. If the broker is unavailable, only those in the store."""
    try:
        return len(find_letters(store, run))
    except (BusError, ConfigError) as error:
        print(f"warning: only the dead letters in the store are counted: {error}", file=sys.stderr)
        return sum(1 for _ in store.list(keys.dead_letters(run)))


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _run_row(store: Store, name: str) -> dict[str, Any]:
    try:
        return _line(store, need_run(store, name))
    except CorruptObject as error:
        return _unreadable_row(name, "run", error)


def _curriculum_row(store: Store, name: str) -> dict[str, Any] | None:
    """None for a curriculum that was deleted since the listing."""
    try:
        spec = find_curriculum(store, name)
    except CorruptObject as error:
        return _unreadable_row(name, "curriculum", error)
    return _curriculum_line(store, spec) if spec else None


def _unreadable_row(name: str, kind: str, error: CorruptObject) -> dict[str, Any]:
    """The row of a run or curriculum whose object is damaged, or of another version. Warns."""
    print(f"warning: {kind} {name!r} is unreadable: {error}", file=sys.stderr)
    unknown = dict.fromkeys(("proofs", "labeled", "engine", "problems"))
    return {"run": name, "type": kind, "state": "unreadable", **unknown}


def _line(store: Store, spec: RunSpec) -> dict[str, Any]:
    labeled = sum(1 for _ in store.list(keys.labels(spec.name)))
    planned: int | None
    try:
        planned = posed_proofs(store, spec)
        missing = "in training" if spec.fine_tuning else f"{labeled} of {planned}"
        state = "complete" if is_complete(store, spec) else missing
    except ConfigError:  # the problem file was moved, or is on another machine
        planned = None
        state = f"{labeled} of ?"
    return {
        "run": spec.name,
        "type": "run",
        "state": state,
        "proofs": planned,
        "labeled": labeled,
        "engine": spec.engine.kinds,
        "problems": spec.problems.origin,
    }


def _curriculum_line(store: Store, spec: CurriculumSpec) -> dict[str, Any]:
    done = len(manifests(store, spec))
    stages = len(spec.stages)
    return {
        "run": spec.name,
        "type": "curriculum",
        "state": "complete" if done == stages else f"{done} of {stages} stages",
        "proofs": None,
        "labeled": None,
        "engine": spec.engine.kind,
        "problems": str(spec.files.problems if spec.files else spec.domain),
    }


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)
