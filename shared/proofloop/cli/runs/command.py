"""`proofloop runs`: all its commands; here `report` and `cost`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proofloop.cli.common import (
    EitherArgument,
    JsonOption,
    StoreOption,
    emit,
    need_run,
    open_store,
)
from proofloop.cli.runs.export import export
from proofloop.cli.runs.measure import measure, search
from proofloop.cli.runs.problems import compare_runs, problems
from proofloop.cli.runs.show import count_dead, curriculum_json, list_runs, show
from proofloop.cli.runs.steps import steps
from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import EnginePrices, Prices, load_prices
from proofloop.curriculum.status import find_curriculum, runs_of, stage_of
from proofloop.errors import ConfigError
from proofloop.pipeline.evaluation import find_summary
from proofloop.runs.costs import Costs, Spent, costs
from proofloop.store import Store

if TYPE_CHECKING:
    from proofloop.report import CurriculumData, ReportData

app = typer.Typer(
    help="Runs and curricula in the store. For runs only: problems, compare, measure, search,"
    " export.",
    no_args_is_help=True,
)
app.command("list")(list_runs)
app.command("show")(show)
app.command("problems")(problems)
app.command("compare")(compare_runs)
app.command("steps")(steps)
app.command("measure")(measure)
app.command("search")(search)
app.command("export")(export)


@app.command("report")
def report(
    run: EitherArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder for report.html and summary.json; a report there is replaced. - prints"
            " report.html only.",
        ),
    ] = Path("report"),
    store: StoreOption = None,
) -> None:
    """Write the HTML report of a run or curriculum.

    The run may be unfinished. report.html is one file that needs no network. The command also
    writes summary.json: for a run its figures before and after training, if measured; for a
    curriculum the output of `runs show --json`.
    """
    from proofloop.report import write_report
    from proofloop.report.page import render

    found, summary = _report_of(open_store(store, must_exist=True), run)
    if out == Path("-"):
        print(render(found))
        return
    page, figures = out / "report.html", out / "summary.json"
    _check_replaceable(page, figures)
    out.mkdir(parents=True, exist_ok=True)
    figures.unlink(missing_ok=True)  # of another run
    if summary:
        figures.write_text(summary + "\n", "utf-8")
    write_report(found, page)
    print(page)


def _check_replaceable(page: Path, figures: Path) -> None:
    """Raise ConfigError if one of the files is not of an earlier report."""
    from proofloop.report import is_report

    foreign = page if page.exists() else figures
    if foreign.exists() and not is_report(page):
        raise ConfigError(
            f"{foreign} exists and is not of a report", "name another folder with --out"
        )


def _report_of(data: Store, run: str) -> tuple[ReportData | CurriculumData, str | None]:
    """The content of the report, and of summary.json if there is one."""
    from proofloop.report import read_curriculum, read_report

    if curriculum := find_curriculum(data, run):
        found = read_curriculum(data, curriculum)
        measured = {
            f"{version}/{what}": figures for (version, what), figures in found.figures.items()
        }
        return found, curriculum_json(run, found.finished, found.now, measured)
    need_run(data, run)
    summary = find_summary(data, run)
    fields = summary.model_dump(mode="json") if summary else None
    shown = read_report(data, run, summary=fields, dead_letters=count_dead(data, run))
    return shown, summary.model_dump_json(indent=2) if summary else None


@app.command("cost")
def cost(
    run: EitherArgument,
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
    """Show the cost of a run or curriculum.

    Calls, tokens, engine seconds and money. Of a run: by role, by problem and by solved problem; of
    a curriculum: by stage and by role, added up over its runs.
    """
    data = open_store(store, must_exist=True)
    curriculum = find_curriculum(data, run)
    at = load_prices(prices) if prices else None
    if curriculum is not None:
        rows, about = _curriculum_costs(data, curriculum, at), f"{len(curriculum.stages)} stages"
        priced = at is not None or curriculum.prices != EnginePrices()
    else:
        need_run(data, run)
        found = costs(data, run, at)
        rows, priced = _cost_rows(found), found.priced
        about = f"{found.problems} problems, {found.solved_problems} solved"
    if not priced:
        rows = [{**row, "money": None} for row in rows]
        if not as_json:
            print(
                f"no money: {run} has no [prices]; give a file with [prices] by --prices",
                file=sys.stderr,
            )
    emit(rows, as_json=as_json, title=f"cost of {run}: {about}")


def _cost_rows(found: Costs) -> list[dict[str, Any]]:
    """The cost by role, in total, and by problem."""
    means = ("per_problem", "per_solved_problem")
    spent: dict[str, Spent] = {role: each for role, each in found.by_role.items()}
    spent["total"] = found.total
    spent |= {name: each for name in means if (each := getattr(found, name)) is not None}
    return [{"of": name, **asdict(each)} for name, each in spent.items()]


def _curriculum_costs(
    store: Store, spec: CurriculumSpec, prices: Prices | None
) -> list[dict[str, Any]]:
    """The cost by stage, by role and in total, added up over the curriculum's runs. Data sets that
    several stages use are in a row of their own.
    """
    by_stage: dict[str, Spent] = {stage.name: Spent() for stage in spec.stages}
    by_role: dict[str, Spent] = {}
    for run in runs_of(store, spec.name):
        found = costs(store, run, prices)
        stage = stage_of(spec, run) or "data and gates"
        by_stage[stage] = by_stage.get(stage, Spent()) + found.total
        for role, each in found.by_role.items():
            by_role[role] = by_role.get(role, Spent()) + each
    total = sum(by_role.values(), start=Spent())
    rows = {**by_stage, **by_role, "total": total}
    return [{"of": name, **asdict(each)} for name, each in rows.items()]
