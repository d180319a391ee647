"""`proofloop demo`: runs and trains the whole pipeline on this machine, and measures the models
before and after with an exact checker.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import open_engines, stopping_on_signal
from proofloop.cli.demo.spec import EVAL_SIZE, QUICK_EVAL_SIZE, demo_spec
from proofloop.cli.progress import ProgressLine
from proofloop.config.section import LARGEST_SEED
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.pipeline.evaluation import (
    Evaluator,
    TrainingSummary,
    find_summary,
)
from proofloop.runs.create import create_run
from proofloop.runs.planned import planned_proofs
from proofloop.schema import keys
from proofloop.store import LocalStore, put_record
from proofloop.worker.roles import load_role


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the store, report.html and summary.json.")
    ] = Path("demo-out"),
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=0,
            max=LARGEST_SEED,
            help="Random seed for problems, sampling and training.",
        ),
    ] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A twentieth of the work: a smoke test that is too short to learn."
        ),
    ] = False,
) -> None:
    """Watch the pipeline prove, label and learn.

    The demo measures a small base model, runs the pipeline on new problems, trains on the labels,
    and measures the trained models. To resume an interrupted demo, run the command again.
    """
    load_role("trainer")  # before the first measurement, if it is not installed
    store = LocalStore(out / "store")
    spec = demo_spec(seed, quick=quick)
    size = QUICK_EVAL_SIZE if quick else EVAL_SIZE
    began = time.monotonic()
    with open_engines(store) as engines, stopping_on_signal() as stopping, ProgressLine() as line:
        evaluator = Evaluator(spec, store, engines, size, line.show, stopping)
        line.print(
            f"1/4 measuring the base model on {size.problems} test problems with the exact checker"
        )
        before = evaluator.before()
        line.print(
            f"2/4 proving and training: {planned_proofs(spec)} proofs, labeled by the models only"
        )
        create_run(store, spec, resume=True)
        with EmbeddedPipeline(store, engines, spec, stopping=stopping) as pipeline:
            pipeline.run(lambda progress: line.show(spec.name, progress))
        line.print("3/4 measuring the trained models, the verifier on the same proofs as in 1/4")
        after = evaluator.after()
        line.print("4/4 writing the report")
    summary = find_summary(store, spec.name) or put_record(
        store,
        keys.summary(spec.name),
        TrainingSummary(
            run_id=spec.name, seconds=time.monotonic() - began, before=before, after=after
        ),
    )
    publish(store, summary, out)


def publish(store: LocalStore, summary: TrainingSummary, out: Path) -> None:
    """Write summary.json and report.html, and print the figures before and after."""
    from proofloop.report import read_report, write_report

    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n", "utf-8")
    write_report(
        read_report(store, summary.run_id, summary=json.loads(summary.model_dump_json())),
        out / "report.html",
    )
    for name in type(summary.before).model_fields:
        print(f"{name:22} {getattr(summary.before, name)}  ->  {getattr(summary.after, name)}")
    print(f"{summary.seconds:.0f} seconds; report: {out / 'report.html'}")
    print(f"details: proofloop runs show {summary.run_id} --store {out / 'store'}", file=sys.stderr)
