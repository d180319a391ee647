"""`proofloop grades`: shows and exports people's grades, and how well people agree."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from proofloop.cli.common import (
    JsonOption,
    RunArgument,
    StoreOption,
    emit,
    need_run,
    open_store,
)
from proofloop.runs.grading.agreement import SCORES, Agreement, agreements
from proofloop.runs.grading.history import all_grades, grades_that_count
from proofloop.schema.records import Grade

app = typer.Typer(help="People's grades of proofs and analyses.", no_args_is_help=True)

AnalysesOption = Annotated[
    bool, typer.Option("--analyses", help="Grades of analyses, not of proofs.")
]


@app.command("export")
def export(run: RunArgument, store: StoreOption = None) -> None:
    """Print every grade of a run as JSONL, with comments and marks.

    Withdrawn and corrected grades are there too; `counts` is true for those that count now. The
    command `proofloop runs export --people` prints the graded proofs with their texts.
    """
    data = open_store(store, must_exist=True)
    need_run(data, run)
    counting = grades_that_count(data, run)
    for grade in all_grades(data, run):
        counts = counting.get((grade.proof_id, grade.critique)) == grade
        print(json.dumps(_row(grade, counts), ensure_ascii=False))


@app.command("agreement")
def agreement(
    run: RunArgument,
    analyses: AnalysesOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how well people agree with each other, and with the labels that they checked.

    kappa is Cohen's, weighted kappa has quadratic weights. Only grades count that were given blind,
    before the person saw the critiques and other grades. 1/0.5: the first gave 1, the second 0.5.
    """
    data = open_store(store, must_exist=True)
    need_run(data, run)
    grades = (grade for grade in all_grades(data, run) if (grade.critique is not None) == analyses)
    rows = [_agreement_row(each) for each in agreements(grades)]
    emit(rows, as_json=as_json, title=f"grades of {run} by two people")


def _row(grade: Grade, counts: bool) -> dict[str, Any]:
    return {
        "run": grade.run_id,
        "proof": grade.proof_id,
        "critique": grade.critique,
        "number": grade.number,
        "by": grade.by,
        "at": datetime.fromtimestamp(grade.at_s, UTC).isoformat(timespec="seconds"),
        "score": grade.score,
        "counts": counts,
        "blind": grade.is_blind,
        "settles": grade.settles,
        "checks_label": grade.checks_label,
        "comment": grade.comment,
        "marks": [mark.model_dump() for mark in grade.marks],
    }


def _agreement_row(found: Agreement) -> dict[str, Any]:
    cells = {f"{one:g}/{other:g}": found.pairs[one, other] for one in SCORES for other in SCORES}
    return {
        "first": found.first,
        "second": found.second,
        "cases": found.cases,
        "equal": found.equal,
        "kappa": found.kappa,
        "weighted_kappa": found.weighted_kappa,
        **cells,
    }
