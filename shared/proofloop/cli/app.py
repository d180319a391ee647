"""The tree of commands. A command's module is imported when the command runs: all of them take more
than a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from proofloop.version import __version__

HELP = """
Mathematical reasoning that checks itself: a generator proves, a verifier criticizes, a
meta-verifier checks the criticism, a labeler decides, a trainer improves the models.

Start with `proofloop demo`: it needs no server and no GPU. Then `proofloop init` writes a run file
for your own problems and model.
"""

COMMANDS = {
    "demo": ("demo.command:demo", "Watch the pipeline prove, label and learn."),
    "init": ("init.command:init", "Write a run file and a file of problems to start from."),
    "run": ("run:run", "Run the problems of a run file."),
    "iterate": ("iterate:iterate", "Train models by a curriculum."),
    "serve": ("serve:serve", "Run one role as a service."),
    "ui": ("ui:ui", "Serve web pages to read, watch and grade runs."),
    "prove": ("prove:prove", "Prove one problem: print the proof, its score and its critiques."),
    "judge": ("judge.command:judge", "Measure judges on proofs with people's grades."),
    "evaluate": ("judge.evaluate:evaluate", "Evaluate a prover on a suite of problems."),
    "proof": ("runs.proof:proof", "Print one answer of a run."),
    "plan": ("plan.command:plan_command", "Estimate a run: calls, tokens, hours, cost."),
    "doctor": ("doctor.command:doctor", "Check this machine, and a run or curriculum file."),
    "runs": ("runs.command:app", "Runs and curricula in the store."),
    "models": ("models:app", "Model versions of a run, one role at a time."),
    "grades": ("grades:app", "People's grades of proofs and analyses."),
    "dead": ("runs.dead:app", "Dead letters: messages that no service could handle."),
    "prompts": ("prompts:app", "Prompt packs: the templates of the models' prompts."),
    "train": ("train:app", "Export training batches for other trainers."),
    "domains": ("domains:app", "Problem domains: list, pose, check."),
    "nano": ("nano:app", "The nano model: train."),
}
"""Each command's place below this package, and the first sentence of its help."""


class Commands(TyperGroup):
    """The group of all commands. Until a command runs, only its name and summary are known."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder and _load(str(name)), rest


def _load(name: str) -> Any:
    module, attribute = COMMANDS[name][0].split(":")
    found = getattr(import_module(f"proofloop.cli.{module}"), attribute)
    holder = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        holder.command(name)(found)
    return typer.main.get_group(holder).commands[name]


app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


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
    from proofloop.config.settings import load_settings
    from proofloop.worker.logs import configure_logging

    configure_logging("info" if verbose else load_settings().log_level)
