"""`proofloop judge`: measures verifiers on proofs that people graded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import LocalOption, StoreOption, open_store
from proofloop.cli.judge.output import print_attacks, print_figures, print_notes
from proofloop.cli.judge.runs import (
    PlanOption,
    comparing_specs,
    estimate_run,
    judge_run,
    judging_specs,
    knocked_out,
    manipulated,
    read_proofs,
)
from proofloop.cli.plan.output import print_run
from proofloop.judging.agreement import statistics
from proofloop.judging.knock_out import most_comparisons
from proofloop.judging.page import write_page
from proofloop.judging.rows import write_rows


def judge(
    data: Annotated[
        Path,
        typer.Argument(
            help="Proofs with people's grades: JSON, JSONL, CSV, TSV, Parquet, or the folder of the"
            " AIMO Proof Pilot."
        ),
    ],
    using: Annotated[
        list[Path],
        typer.Option(
            "--using",
            help="A run.toml: its engine, models, prompts, sampling and labeling judge the proofs."
            " Repeat it to compare judges side by side.",
        ),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            help="Which column holds what, as in grade=Points: problem, proof, grade, max,"
            " problem_id, source, reference, rubric, id. Default: guessed by name.",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="The scale of the grades: score (0, 0.5, 1), pass-fail, or the number of full"
            " marks. Default: guessed from the largest grade.",
        ),
    ] = None,
    attack: Annotated[
        bool,
        typer.Option(
            "--attack",
            help="Judge manipulated proofs instead, made from those of the file by rule: planted"
            " scores, instructions, deleted steps and others. Says how often each kind succeeds.",
        ),
    ] = False,
    per_kind: Annotated[
        int, typer.Option("--per-kind", min=1, help="The most proofs of each kind of attack.")
    ] = 10,
    knock_out: Annotated[
        str | None,
        typer.Option(
            "--knock-out",
            help="Then compare the accepted proofs of each problem in pairs, with the prompts of"
            " this pack: math-pairwise, or a folder. Says how often the winner is wrong.",
        ),
    ] = None,
    plan: PlanOption = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="The run's name, if there is one --using. Default: of both files."
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", help="Write one JSON line for each judged proof to this file."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="Write the figures, plots and worst disagreements to this HTML file."
        ),
    ] = None,
    store: StoreOption = None,
    local: LocalOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure judges on proofs with people's grades.

    The verifier, the meta-verifier and the labeling rule of each run file judge the proofs. The
    figures compare them with the grades: how often they agree, how lenient they are, what more
    critiques buy and what they cost, with 95 % intervals. No model sees a grade. To resume an
    interrupted run, run the command again: no stored answer is paid twice.

    With --attack the command measures who can fool the judges: manipulated proofs, whose right
    grade is known, are judged, and accepted ones are counted for each kind of attack.
    """
    specs = judging_specs(using, data, name, "-attacked" if attack else "")
    comparing = comparing_specs(specs, knock_out, is_attack=attack)
    statistics()  # a missing extra is named before any model is paid
    read = read_proofs(data, column or [], scale, specs)
    if attack:
        read = manipulated(read, per_kind, specs[0])
    print_notes(read)
    if plan:
        for spec in specs:
            print_run(estimate_run(spec, data, read.cases), spec)
        for spec in comparing:
            print_run(estimate_run(spec, data, most_comparisons(read.cases)), spec)
        return
    opened = open_store(store)
    judged = [judge_run(opened, spec, data, read, local=local) for spec in specs]
    for place, spec in enumerate(comparing):
        judged[place] = knocked_out(opened, judged[place], spec, local=local)
    if rows is not None:
        write_rows(tuple(row for one in judged for row in one.rows), rows)
    if attack:
        print_attacks(judged, read, as_json=as_json)
    else:
        print_figures(judged, read, as_json=as_json)
    if page is not None:
        write_page(opened, [(one.rows, one.figures) for one in judged], page)
