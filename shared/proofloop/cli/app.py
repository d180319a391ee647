"""The tree of commands; each group has a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from proofloop.cli import (
    domains,
    grades,
    iterate,
    models,
    nano,
    prompts,
    prove,
    run,
    serve,
    train,
    ui,
)
from proofloop.cli.demo import command as demo
from proofloop.cli.doctor import command as doctor
from proofloop.cli.init import command as init
from proofloop.cli.judge import command as judge
from proofloop.cli.judge import evaluate
from proofloop.cli.plan import command as plan
from proofloop.cli.runs import command as runs
from proofloop.cli.runs import dead, proof
from proofloop.config.settings import load_settings
from proofloop.version import __version__
from proofloop.worker.logs import configure_logging

HELP = """
Mathematical reasoning that checks itself: a generator proves, a verifier criticizes, a
meta-verifier checks the criticism, a labeler decides, a trainer improves the models.

Start with `proofloop demo`: it needs no server and no GPU. Then `proofloop init` writes a run file
for your own problems and model.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("run")(run.run)
app.command("iterate")(iterate.iterate)
app.command("serve")(serve.serve)
app.command("ui")(ui.ui)
app.command("prove")(prove.prove)
app.command("judge")(judge.judge)
app.command("evaluate")(evaluate.evaluate)
app.command("proof")(proof.proof)
app.command("plan")(plan.plan_command)
app.command("doctor")(doctor.doctor)
app.add_typer(runs.app, name="runs")
app.add_typer(models.app, name="models")
app.add_typer(grades.app, name="grades")
app.add_typer(dead.app, name="dead")
app.add_typer(prompts.app, name="prompts")
app.add_typer(train.app, name="train")
app.add_typer(domains.app, name="domains")
app.add_typer(nano.app, name="nano")


def print_version(requested: bool) -> None:
    """The callback of --version."""
    if requested:
        print(f"proofloop {__version__}")
        raise typer.Exit


@app.callback()
def configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log the work of each service.")
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Set up logging before any command."""
    configure_logging("info" if verbose else load_settings().log_level)
