"""`proofloop demo`: the whole loop on this machine, from a base model to a better one, measured by
an exact checker.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from proofloop.cli.common import ProgressLine, open_engines, stopping_on_signal
from proofloop.cli.demo_spec import EVAL_SIZE, QUICK_EVAL_SIZE, demo_spec
from proofloop.pipeline.embedded import LocalWalk, create_run, planned_proofs
from proofloop.pipeline.evaluation import Summary, evaluate_after, evaluate_before, find_summary
from proofloop.schema import keys
from proofloop.store import LocalStore, put_record


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the store, report.html and summary.json.")
    ] = Path("demo-out"),
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of problems, sampling and training.")
    ] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A tenth of everything: shows that it runs, not that it learns."
        ),
    ] = False,
) -> None:
    """Watch the loop learn: pose, prove, criticise, check the criticism, label, train, serve the
    new versions.

    Stop it with Ctrl-C and call it again: it goes on where it stood.
    """
    store = LocalStore(out / "store")
    spec, size = demo_spec(seed, quick=quick), QUICK_EVAL_SIZE if quick else EVAL_SIZE
    began = time.monotonic()
    engines = open_engines(store)
    try:
        with stopping_on_signal() as stopping, ProgressLine() as line:
            line.say(
                f"1/4 measuring the base model on {size.problems} test problems with the exact"
                " checker"
            )
            before = evaluate_before(spec, store, engines, size, line.show, stopping)
            line.say(
                f"2/4 the loop: {planned_proofs(spec)} proofs; labels by the learned judges only"
            )
            create_run(store, spec, resume=True)
            with LocalWalk(store, engines, spec, stopping=stopping) as walk:
                walk.run(planned_proofs(spec), lambda progress: line.show(spec.name, progress))
            line.say(
                "3/4 measuring the models now in service, the verifier on the same proofs as before"
            )
            after = evaluate_after(spec, store, engines, size, line.show, stopping)
            line.say("4/4 writing the report")
    finally:
        engines.close()
    summary = find_summary(store, spec.name) or put_record(
        store,
        keys.summary(spec.name),
        Summary(run_id=spec.name, seconds=time.monotonic() - began, before=before, after=after),
    )
    publish(store, summary, out)


def publish(store: LocalStore, summary: Summary, out: Path) -> None:
    """Write summary.json and report.html, and print what changed."""
    from proofloop.report import read_report, write_report

    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n", "utf-8")
    write_report(
        read_report(store, summary.run_id, summary=json.loads(summary.model_dump_json())),
        out / "report.html",
    )
    for name in type(summary.before).model_fields:
        print(f"{name:22} {getattr(summary.before, name)}  ->  {getattr(summary.after, name)}")
    print(f"{summary.seconds:.0f} seconds; read {out / 'report.html'}")
    print(f"more: proofloop runs show {summary.run_id} --store {out / 'store'}", file=sys.stderr)
