"""The commands and options of `proofloop`, from the Typer application."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from scripts.reference.tables import table

from proofloop.cli.app import app

EXIT_CODES = (
    ("0", "done"),
    ("1", "failed: proofs without a label, or an engine that cannot answer"),
    ("2", "invalid input: a file, an option, a setting"),
    ("3", "done, but no answer of the generator, or of the verifier, was readable"),
    ("4", "the run's `[budget]` is used up"),
    ("130", "stopped by Ctrl-C"),
)


def sections() -> list[str]:
    pages = [
        "\n\n".join(filter(None, _parts(context.command, context)))
        for context in contexts()
        if context.parent is None or not getattr(context.command, "commands", {})
    ]
    return [*pages, f"## Exit codes\n\n{table(('code', 'meaning'), EXIT_CODES)}"]


def contexts() -> Iterator[Any]:
    """The context of each command, those of its subcommands after it."""
    root = typer.main.get_command(app)
    with root.make_context("proofloop", [], resilient_parsing=True) as context:
        yield from _below(context)


def _below(context: Any) -> Iterator[Any]:
    yield context
    for name in getattr(context.command, "commands", {}):
        _, subcommand, _ = context.command.resolve_command(context, [name])
        yield from _below(context.__class__(subcommand, info_name=name, parent=context))


def _parts(command: Any, context: Any) -> Iterator[str]:
    """Heading, usage, help, arguments and options."""
    yield f"## {context.command_path}"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```\n{usage}\n```"
    yield _paragraphs(command.help or "")
    records = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) and record[0] != "--help"
    ]
    if records:
        yield table(
            ("argument or option", "meaning"),
            [(f"`{name}`", " ".join(text.split())) for name, text in records],
        )


def _paragraphs(text: str) -> str:
    """Help text as Markdown: a paragraph after `\\b` keeps its lines as a code block."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(
        f"```\n{inspect.cleandoc(paragraph.lstrip(chr(8)))}\n```"
        if paragraph.startswith("\b")
        else " ".join(paragraph.split())
        for paragraph in paragraphs
    )
