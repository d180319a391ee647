"""`proofloop nano`: poses problems of the nano domain, checks proofs, and trains its base model."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from proofloop.config.problem_file import pose_distinct
from proofloop.errors import ConfigError, install_hint
from proofloop.method.domains import load_domain
from proofloop.method.domains.nano import check_proof

app = typer.Typer(help="The nano domain: pose, check, train.", no_args_is_help=True)


@app.command("pose")
def pose(
    count: Annotated[int, typer.Option("--count", min=1, help="How many problems.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    name: Annotated[
        str, typer.Option("--domain", help="nano (2 to 6 steps) or nano-long (7 or 8).")
    ] = "nano",
) -> None:
    """Print problems as JSONL.

    A run file takes them as [problems] file.
    """
    for problem in pose_distinct(load_domain(name), count, split=split, seed=seed):
        print(problem.model_dump_json(exclude_none=True))


@app.command("check")
def check(
    question: Annotated[str, typer.Argument(help="The question of a problem of `nano pose`.")],
    solution: Annotated[str, typer.Argument(help="The proof, one line for each step.")],
) -> None:
    """Check a proof exactly.

    The command prints the proof's score and its defects as JSON.
    """
    try:
        finding = check_proof(question, solution)
    except LookupError as error:
        raise ConfigError(
            f"{question[:60]!r} is {error}", "give a question that `proofloop nano pose` prints"
        ) from error
    print(
        json.dumps(
            {"score": finding.score, "defects": [vars(defect) for defect in finding.defects]}
        )
    )


@app.command("train")
def train(
    out: Annotated[Path, typer.Option("--out", help="Folder for the new model.")] = Path(
        "nano-base"
    ),
    seed: Annotated[int, typer.Option("--seed")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 11000,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="CPU cores to use if there is no GPU.")
    ] = 1,
) -> None:
    """Train a new base model.

    Like the shipped model, it learns from scratch by practice and imperfect demonstrations. It
    takes minutes on a GPU, and at most an hour on two CPU cores.
    """
    for point in entry_points(group="proofloop.commands", name="nano-train"):
        point.load()(out, seed, steps, threads)
        return
    raise ConfigError("the trainer is not installed", install_hint("trainer"))
