"""`proofloop evaluate`: one-shot evaluation of a prover on a suite of problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api import Run
from proofloop.cli.common import LocalOption, StoreOption, emit, stopping_on_signal
from proofloop.cli.judge.runs import PlanOption
from proofloop.cli.plan.output import print_run
from proofloop.cli.progress import ProgressLine
from proofloop.config.run_file import RunSpec, read_fields
from proofloop.judging.one_shot import (
    CategoryFigures,
    categories_of,
    evaluating_fields,
    one_shot_figures,
)
from proofloop.judging.runs import run_name
from proofloop.judging.tables import shown
from proofloop.runs.planning.capacity import Habits
from proofloop.runs.planning.estimate import RunEstimate, estimate
from proofloop.schema.ids import check_id


def evaluate(
    suite: Annotated[
        Path,
        typer.Argument(help="Problems: JSON, JSONL, CSV, TSV or Parquet, perhaps with a category."),
    ],
    using: Annotated[
        Path,
        typer.Option(
            "--using", help="A run.toml: its engine, models, prompts and sampling are evaluated."
        ),
    ],
    proofs: Annotated[int, typer.Option("--proofs", min=1, help="Proofs of each problem.")] = 8,
    critiques: Annotated[
        int, typer.Option("--critiques", min=1, help="Critiques of each proof.")
    ] = 8,
    category: Annotated[
        str | None,
        typer.Option(
            "--category",
            help="The column with a problem's category. Default: category, subject, topic, contest"
            " or source.",
        ),
    ] = None,
    plan: PlanOption = False,
    name: Annotated[
        str | None, typer.Option("--name", help="The run's name. Default: of both files.")
    ] = None,
    store: StoreOption = None,
    local: LocalOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Evaluate a prover on a suite of problems.

    This is the one-shot evaluation of section 3.3.1: each problem gets 8 proofs, and each proof the
    score that most of 8 critiques give. Prints the share of proofs with score 1 (Pass@1) with its
    95 % interval, by category. The score is the verifier's: `proofloop judge` measures how far you
    can trust it. To resume an interrupted run, run the command again.
    """
    categories = categories_of(suite, category)
    fields = read_fields(using, RunSpec)
    own = check_id(name or run_name(fields["name"], suite, "-one-shot"), "--name")
    run_fields = evaluating_fields(fields, suite, own, proofs=proofs, critiques=critiques)
    run = Run.create(run_fields, store=store, resume=True, local=local)
    if plan:
        print_run(_estimate(run.spec), run.spec)
        return
    with stopping_on_signal() as stopping, ProgressLine() as line:
        run.finish(lambda progress: line.show(run.name, progress), stopping=stopping)
    _print(list(one_shot_figures(run.store, run.name, categories)), run.name, as_json=as_json)


def _estimate(spec: RunSpec) -> RunEstimate:
    return estimate(spec, None, Habits(attempts=1.0), {})


def _print(found: list[CategoryFigures], run: str, *, as_json: bool) -> None:
    if as_json:
        figures = [each.model_dump(mode="json") for each in found]
        print(json.dumps({"run_id": run, "categories": figures}, indent=2))
        return
    rows = [
        {
            "category": each.category,
            "problems": each.problems,
            "Pass@1": shown(each.pass_at_1),
            "mean score": shown(each.mean_score),
            "undecided": shown(each.undecided),
            "unreadable": shown(each.unreadable),
        }
        for each in found
    ]
    emit(rows, as_json=False, title=f"{run}: proofs by the majority of their critiques")
