"""`proofloop runs`: all its commands; here `report`, `cost` and `export`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import (
    EitherArgument,
    JsonOption,
    RunArgument,
    StoreOption,
    emit,
    need_run,
    open_store,
)
from proofloop.cli.runs.measure import measure, search
from proofloop.cli.runs.show import count_dead, curriculum_json, list_runs, show
from proofloop.cli.runs.steps import steps
from proofloop.config.run_file import load_prices
from proofloop.curriculum.status import find_curriculum
from proofloop.errors import ConfigError
from proofloop.pipeline.evaluation import find_summary
from proofloop.runs.costs import costs
from proofloop.runs.labels import analysis_rows, proof_rows

app = typer.Typer(
    help="Runs and curricula in the store: list, show, steps, report. For runs only: measure,"
    " search, cost, export.",
    no_args_is_help=True,
)
app.command("list")(list_runs)
app.command("show")(show)
app.command("steps")(steps)
app.command("measure")(measure)
app.command("search")(search)


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
        shown = curriculum_json(run, found.finished, found.now, measured)
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
        read_report(data, run, summary=fields, dead_letters=count_dead(data, run)),
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
