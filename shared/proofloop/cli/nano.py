"""`proofloop nano`: the small domain with the exact checker, by hand."""

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

app = typer.Typer(
    help="The nano domain: pose problems, check proofs, train the base model.", no_args_is_help=True
)


@app.command("pose")
def pose(
    count: Annotated[int, typer.Option("--count", min=1, help="How many.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    name: Annotated[
        str, typer.Option("--domain", help="nano (2 to 6 steps) or nano-long (7 or 8).")
    ] = "nano",
) -> None:
    """Print problems as JSONL, ready for a run file's problems.file."""
    for problem in pose_distinct(load_domain(name), count, split=split, seed=seed):
        print(problem.model_dump_json(exclude_none=True))


@app.command("check")
def check(
    question: Annotated[str, typer.Argument(help="The problem as `nano pose` prints it.")],
    solution: Annotated[str, typer.Argument(help="The proof: one line a step.")],
) -> None:
    """Print what the exact checker says of a proof."""
    try:
        finding = check_proof(question, solution)
    except LookupError as error:
        raise ConfigError(
            f"{question[:60]!r} is {error}", "give it as `proofloop nano pose` prints it"
        ) from error
    print(
        json.dumps(
            {"score": finding.score, "defects": [vars(defect) for defect in finding.defects]}
        )
    )


@app.command("train")
def train(
    out: Annotated[Path, typer.Option("--out", help="Folder of the new model.")] = Path(
        "nano-base"
    ),
    seed: Annotated[int, typer.Option("--seed")] = 0,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Steps of practice and demonstrations.")
    ] = 11000,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Cores to use, where there is no GPU.")
    ] = 1,
) -> None:
    """Train a base model from nothing on imperfect demonstrations, as the shipped one was.

    It takes minutes on a GPU, and an hour on two cores at most.
    """
    for point in entry_points(group="proofloop.commands", name="nano-train"):
        point.load()(out, seed, steps, threads)
        return
    raise ConfigError("training needs the trainer", install_hint("trainer"))
