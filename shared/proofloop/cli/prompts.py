"""`proofloop prompts`: shows and imports prompt packs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from proofloop.method.prompts import load_pack
from proofloop.method.prompts.importer import import_pack

app = typer.Typer(help="Prompt packs: the templates of the models' prompts.", no_args_is_help=True)


@app.command("show")
def show(
    pack: Annotated[
        str,
        typer.Argument(
            help="An installed pack (math, math-json, math-pairwise, math-points, math-reference,"
            " math-rubric, nano), or the folder of one."
        ),
    ] = "math",
) -> None:
    """Print the templates of a prompt pack.

    It also prints their digests, and the phrases or JSON schemas that the answers must have.
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
    out: Annotated[Path, typer.Option("--out", help="Folder for the new pack.")] = Path(
        "prompt-pack"
    ),
) -> None:
    """Make a prompt pack from an official math_templates.py.

    The file is parsed, never executed. The import checks the placeholders, and takes the phrases of
    the answers from the samples in the templates.
    """
    pack = import_pack(file, out)
    print(
        f'{out}: {", ".join(pack.templates)}; use it with prompts = "{out.absolute()}" in a run'
        " file"
    )
    print(
        "phrases expected in answers:"
        f" {', '.join(repr(phrase) for _, phrase in pack.phrases if phrase)}",
        file=sys.stderr,
    )
    print(
        "note: these templates do not fence proofs, so a proof can imitate the end of its section",
        file=sys.stderr,
    )
