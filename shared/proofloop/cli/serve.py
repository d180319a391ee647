"""`proofloop serve`: one role as a service of its own."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Annotated

import typer

from proofloop.errors import ConfigError
from proofloop.runtime import load_role


def serve(
    role: Annotated[str, typer.Argument(help="generator, verifier, meta_verifier, labeler or trainer.")],
    check: Annotated[bool, typer.Option("--check", help="Load the role, print what it handles, and end.")] = False,
) -> None:
    """Run one role as a service: it takes its events from the broker and writes to the store."""
    loaded = load_role(role)
    if check:
        print(json.dumps({"role": loaded.name, "handles": sorted(loaded.handlers), "proofloop": version("proofloop")}))
        return
    raise ConfigError("no broker is set", "this version runs all roles in one process: `proofloop run RUN.toml --local`")
