"""`proofloop init`: writes a run file and a problem file that work at once.

run.toml in this folder has what all engines share; ENGINE.toml has the engine's own part.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Literal

import typer

from proofloop.errors import ConfigError
from proofloop.schema.ids import check_id

TEMPLATES = files("proofloop.cli.init")

URLS = {"openai": "http://localhost:8000/v1", "triton": "localhost:8001"}
"""The default address of the engines that have one."""

MODELS = {
    "openai": "my-model",
    "triton": "/models/my-model",
    "local": "/models/my-model",
    "simulated": "simulated",
}


def init(
    folder: Annotated[
        Path,
        typer.Argument(help="The folder for both files; its name becomes the run's name."),
    ] = Path(),
    engine: Annotated[
        Literal["openai", "triton", "local", "simulated"],
        typer.Option(
            "--engine",
            help="openai: vLLM, SGLang, llama.cpp or a hosted API; triton: Triton servers; local: a"
            " model in this process; simulated: invented answers, to rehearse a run.",
        ),
    ] = "openai",
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            help="The server's address. Default: http://localhost:8000/v1, for Triton"
            " localhost:8001.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="The model of all three roles: its name on the server; for triton and local a"
            " folder in Hugging Face format. Default: a placeholder.",
        ),
    ] = None,
) -> None:
    """Write a run file and a file of problems to start from.

    FOLDER/run.toml names your model and explains the keys that most runs need; FOLDER/problems.json
    holds four easy problems: replace them by your own. The command overwrites nothing.

    Then `proofloop doctor FOLDER/run.toml` checks the file and calls the model, and `proofloop run
    FOLDER/run.toml` starts the run.
    """
    name = check_id(folder.absolute().name, "the folder's name")
    if url is not None and engine not in URLS:
        raise ConfigError(
            f"--url and --engine {engine} do not go together: this engine has no server",
            f"leave out --url, or choose --engine {' or '.join(URLS)}",
        )
    values = {
        "name": name,
        "url": in_toml(url or URLS.get(engine, "")),
        "model": in_toml(model or MODELS[engine]),
    }
    engine_part = Template(read_template(f"{engine}.toml")).substitute(values)
    run_file = Template(read_template("run.toml")).substitute(values, engine=engine_part.strip())
    write_new(folder, {"run.toml": run_file, "problems.json": read_template("problems.json")})
    print(f"wrote {folder / 'run.toml'} and {folder / 'problems.json'}")
    print(f"next: proofloop doctor {folder / 'run.toml'}", file=sys.stderr)


def read_template(name: str) -> str:
    return TEMPLATES.joinpath(name).read_text("utf-8")


def in_toml(text: str) -> str:
    """The text, escaped for the quotes of a TOML string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def write_new(folder: Path, texts: dict[str, str]) -> None:
    """Write the files, or none if one of them exists. Raises ConfigError."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file", "give the folder for both files")
    for name in texts:
        if (folder / name).exists():
            raise ConfigError(
                f"{folder / name} exists, and init overwrites nothing", "give another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
