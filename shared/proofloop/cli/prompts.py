"""`proofloop prompts`: what the models are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from proofloop.method.prompts import load_pack
from proofloop.method.prompts.importer import import_pack

app = typer.Typer(help="Prompt packs: four templates each.", no_args_is_help=True)


@app.command("show")
def show(
    pack: Annotated[
        str, typer.Argument(help="An installed pack (math, math-json, nano), or the folder of one.")
    ] = "math",
) -> None:
    """Print the templates of a pack with their digests, and the phrases or JSON schemas of its
    answers.
    """
    loaded = load_pack(pack)
    for name, text in loaded.templates.items():
        print(f"=== {name} ({loaded.digest(name)})\n{text}\n")
    if loaded.answers == "json":
        for name in loaded.templates:
            print(f"=== JSON schema of {name}\n{json.dumps(loaded.answer_schema(name))}")
        return
    print("=== phrases")
    for name, phrase in loaded.phrases:
        print(f"{name} = {json.dumps(phrase, ensure_ascii=False)}")


@app.command("import")
def import_file(
    file: Annotated[
        Path, typer.Argument(help="A Python file with the official dictionary of four templates.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new pack.")] = Path(
        "prompt-pack"
    ),
) -> None:
    """Make a pack of an official math_templates.py: parsed, never executed.

    Its placeholders are checked, and the phrases of its answers are taken from its sample answers.
    """
    pack = import_pack(file, out)
    print(
        f'{out}: {", ".join(pack.templates)}; use it with prompts = "{out.absolute()}" in a run'
        " file"
    )
    print(
        f"answers are read by: {', '.join(repr(phrase) for _, phrase in pack.phrases if phrase)}",
        file=sys.stderr,
    )
    print(
        "note: its templates say where a proof ends, no fence does: a proof may close its section",
        file=sys.stderr,
    )
