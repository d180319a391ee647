"""`proofloop runs`: lists runs and curricula, and shows their progress, figures and costs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from proofloop.cli.common import JsonOption, StoreOption, emit, names, need_run, open_store
from proofloop.cli.runs.dead import find_letters
from proofloop.cli.runs.steps import steps
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import RunSpec, load_prices
from proofloop.curriculum.status import (
    StageManifest,
    Status,
    all_figures,
    find_curriculum,
    manifests,
    read_status,
)
from proofloop.errors import BusError, ConfigError
from proofloop.method.domains import Checker, load_domain, need_checker
from proofloop.pipeline.evaluation import find_summary
from proofloop.runs.answers import Readability, Unread, readability
from proofloop.runs.costs import costs
from proofloop.runs.figures import (
    Figure,
    evaluate_run,
    meta_verifier_accuracy,
    refinement_figures,
    search_figures,
)
from proofloop.runs.labels import analysis_rows, labels_of, proof_rows
from proofloop.runs.model_registry import published_versions
from proofloop.runs.planned import is_complete, planned_proofs
from proofloop.runs.search_driver import refinements_posed, searches_of
from proofloop.schema import keys
from proofloop.store import Store

app = typer.Typer(
    help="Runs and curricula in the store: list, show, steps, report. For runs only: measure,"
    " search, cost, export.",
    no_args_is_help=True,
)

RunArgument = Annotated[str, typer.Argument(help="The run's name.")]
EitherArgument = Annotated[str, typer.Argument(help="The name of a run or a curriculum.")]


@app.command("list")
def list_runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List all runs and curricula with their progress."""
    data = open_store(store, must_exist=True)
    curricula = (find_curriculum(data, name) for name in names(data, keys.CURRICULA))
    rows = [_line(data, need_run(data, name)) for name in names(data, keys.SPECS)]
    emit([*rows, *(_curriculum_line(data, spec) for spec in curricula if spec)], as_json=as_json)


@app.command("show")
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
        "dead_letters": _count_dead(data, run),
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
        f"{role}_answers": f"{seen}, {found.read[role]} readable"
        for role, seen in found.seen.items()
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
    scope = "" if found.is_whole else f" of the first {sum(found.seen.values())} answers"
    return f"unreadable or failed{scope}; `proofloop proof {run} EXAMPLE` prints one"


def _show_curriculum(store: Store, spec: CurriculumSpec, *, as_json: bool) -> None:
    """Print the stages with their gates, the status, and the measured figures."""
    found = manifests(store, spec)
    now = read_status(store, spec)
    measured = all_figures(store, spec.name)
    if as_json:
        print(_curriculum_json(spec.name, found, now, measured))
        return
    emit(
        [_stage_row(stage.name, found.get(stage.name)) for stage in spec.stages],
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


def _curriculum_json(
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


def _stage_row(name: str, manifest: StageManifest | None) -> dict[str, Any]:
    if manifest is None:
        return {"stage": name, "state": "waits", "seconds": None, "gate": None, "serves": None}
    gates = "; ".join(f"{gate.before:.3f} -> {gate.after:.3f}" for gate in manifest.gates)
    return {
        "stage": name,
        "state": "done",
        "seconds": round(manifest.seconds),
        "gate": gates or None,
        "serves": ", ".join(sorted(manifest.serves)) or None,
    }


app.command("steps")(steps)


@app.command("measure")
def measure(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Measure a run with the exact checker of its domain, or by the grades of its given proofs and
    analyses. Refinement and search are measured step by step.
    """
    data = open_store(store, must_exist=True)
    spec = need_run(data, run)
    domain = spec.problems.checked_by
    if domain is None and not spec.problems.is_given:
        raise ConfigError(
            f"run {run!r} has problems from a file, which no exact checker can measure",
            f"grade its proofs with `proofloop review {run}`",
        )
    checker = need_checker(load_domain(domain)) if domain else None
    found: dict[str, Figure] = dict(evaluate_run(data, run, checker))
    found["meta_verifier_accuracy"] = meta_verifier_accuracy(data, run, checker)
    found |= _step_figures(data, spec, checker) if checker else {}
    emit(
        [{"figure": name, **figure.model_dump()} for name, figure in found.items()], as_json=as_json
    )


def _step_figures(data: Store, spec: RunSpec, checker: Checker) -> dict[str, Figure]:
    """The figures after each attempt of a refinement, and after each round of a search."""
    run = spec.name
    found: dict[str, Figure] = {}
    if spec.refinement.iterations > 1:
        refined = refinement_figures(data, run, checker, spec.refinement.iterations)
        found |= {
            f"pass_at_1 after {number} attempts": f for number, f in enumerate(refined.pass_at_1, 1)
        }
        found[f"best of {spec.problems.proofs_per_problem} by self-score"] = (
            refined.best_by_self_score
        )
    if spec.search.rounds:
        rounds = enumerate(search_figures(data, run, checker))
        found |= {
            f"best proof after {number} rounds of search": figure for number, figure in rounds
        }
    return found


@app.command("search")
def search(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the ended searches of a run.

    For each problem: the rounds, the proofs and the best proof. `solved`: whether the best proof
    passed all n critiques.
    """
    data = open_store(store, must_exist=True)
    if not need_run(data, run).search.rounds:
        raise ConfigError(
            f"run {run!r} has no search", "set [search] rounds above 0 in the run file"
        )
    rows = [
        {
            "problem": found.problem_id,
            "solved": found.solved,
            "score": found.score,
            "rounds": len(found.best_by_round) - 1,
            "proofs": found.proofs,
            "best": found.best,
        }
        for found in searches_of(data, run)
    ]
    emit(rows, as_json=as_json, title="ended searches")


@app.command("report")
def report(
    run: EitherArgument,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for report.html and summary.json.")
    ] = Path("report"),
    store: StoreOption = None,
) -> None:
    """Write the HTML report of a run or curriculum.

    The run may be unfinished. report.html is one file that needs no network. The command also
    writes summary.json: for a run its figures before and after training, if measured; for a
    curriculum the output of `runs show --json`.
    """
    from proofloop.report import read_curriculum, read_report, write_report

    data = open_store(store, must_exist=True)
    if curriculum := find_curriculum(data, run):
        found = read_curriculum(data, curriculum)
        measured = {
            f"{version}/{what}": figures for (version, what), figures in found.figures.items()
        }
        out.mkdir(parents=True, exist_ok=True)
        shown = _curriculum_json(run, found.finished, found.now, measured)
        (out / "summary.json").write_text(shown + "\n", "utf-8")
        write_report(found, out / "report.html")
        print(out / "report.html")
        return
    need_run(data, run)
    out.mkdir(parents=True, exist_ok=True)
    summary = find_summary(data, run)
    fields = summary.model_dump(mode="json") if summary else None
    if summary:
        (out / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n", "utf-8")
    write_report(
        read_report(data, run, summary=fields, dead_letters=_count_dead(data, run)),
        out / "report.html",
    )
    print(out / "report.html")


@app.command("cost")
def cost(
    run: RunArgument,
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            help="A TOML file with [prices], such as a run file; default: the run's prices.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the cost of a run.

    Calls, tokens, engine seconds and money: by role, by problem and by solved problem.
    """
    data = open_store(store, must_exist=True)
    need_run(data, run)
    found = costs(data, run, load_prices(prices) if prices else None)
    rows = [{"of": role, **asdict(spent)} for role, spent in found.by_role.items()]
    for name in ("total", "per_problem", "per_solved_problem"):
        spent = getattr(found, name)
        if spent is not None:
            rows.append({"of": name, **asdict(spent)})
    if not found.priced:
        rows = [{**row, "money": None} for row in rows]
        if not as_json:
            print(
                f"no money: run {run} has no [prices]; give a file with [prices] by --prices",
                file=sys.stderr,
            )
    emit(
        rows,
        as_json=as_json,
        title=f"cost of {run}: {found.problems} problems, {found.solved_problems} solved",
    )


@app.command("export")
def export(
    run: RunArgument,
    people: Annotated[
        bool, typer.Option("--people", help="Only proofs that people graded.")
    ] = False,
    analyses: Annotated[
        bool, typer.Option("--analyses", help="Critiques, with `quality` to be filled in by you.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Print labeled proofs or critiques as JSONL.

    The rows have the form of a curriculum's [files].
    """
    data = open_store(store, must_exist=True)
    need_run(data, run)
    if people and analyses:
        raise ConfigError(
            "--people and --analyses exclude each other: people grade only proofs",
            "leave one of them out",
        )
    for row in analysis_rows(data, run) if analyses else proof_rows(data, run, people=people):
        print(json.dumps(row, ensure_ascii=False))


def _count_dead(store: Store, run: str) -> int:
    """The number of a run's dead letters. If the broker is unavailable, only those in the store."""
    try:
        return len(find_letters(store, run))
    except (BusError, ConfigError) as error:
        print(f"warning: only the dead letters in the store are counted: {error}", file=sys.stderr)
        return sum(1 for _ in store.list(keys.dead_letters(run)))


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _line(store: Store, spec: RunSpec) -> dict[str, Any]:
    labeled = sum(1 for _ in store.list(keys.labels(spec.name)))
    planned: int | None
    try:
        planned = planned_proofs(spec, store) + refinements_posed(store, spec)
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
