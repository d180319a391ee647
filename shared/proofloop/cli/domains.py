"""`proofloop domains`: lists the installed domains, poses their problems, and checks proofs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from proofloop.cli.common import JsonOption, emit
from proofloop.config.problem_file import pose_distinct
from proofloop.method.domains import domain_names, load_domain, need_proof_finding

app = typer.Typer(help="Problem domains: list, pose, check.", no_args_is_help=True)

DomainOption = Annotated[
    str, typer.Option("--domain", help="An installed domain, as `domains list` prints it.")
]


@app.command("list")
def list_domains(as_json: JsonOption = False) -> None:
    """List the installed domains."""
    emit(
        [
            {
                "domain": domain.name,
                "prompt_pack": domain.prompt_pack,
                "exact_checker": "yes" if domain.checker else "no",
            }
            for domain in map(load_domain, domain_names())
        ],
        as_json=as_json,
    )


@app.command("pose")
def pose(
    name: DomainOption = "nano",
    count: Annotated[int, typer.Option("--count", min=1, help="How many problems.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Print problems as JSONL.

    A file of them can be the [problems] file of a run.
    """
    for problem in pose_distinct(load_domain(name), count, split=split, seed=seed):
        print(problem.model_dump_json(exclude_none=True))


@app.command("check")
def check(
    question: Annotated[str, typer.Argument(help="The question of a problem of the domain.")],
    solution: Annotated[str, typer.Argument(help="The proof.")],
    name: DomainOption = "nano",
) -> None:
    """Check a proof exactly.

    The command prints the proof's score and its defects as JSON.
    """
    finding = need_proof_finding(load_domain(name), question, solution)
    print(
        json.dumps(
            {"score": finding.score, "defects": [vars(defect) for defect in finding.defects]}
        )
    )
