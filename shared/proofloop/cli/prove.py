"""`proofloop prove`: runs the whole pipeline on one problem and prints its proofs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from proofloop import api
from proofloop.api import ProofResult
from proofloop.cli.common import StoreOption, open_store, stopping_on_signal
from proofloop.cli.progress import ProgressLine
from proofloop.errors import ConfigError
from proofloop.typeset.printable import printable

TEXT_SUFFIXES = (".txt", ".md", ".tex")
PATH = re.compile(r"[A-Za-z0-9._/~-]+")
"""A word without the signs of a formula."""


def prove(
    problem: Annotated[
        str, typer.Argument(help="The text of the problem, or the path of a text file with it.")
    ],
    using: Annotated[
        Path | None,
        typer.Option(
            "--using",
            help="A run.toml: its engine, models, prompts, sampling and labeling are used.",
        ),
    ] = None,
    proofs: Annotated[int, typer.Option("--proofs", min=1, help="How many proofs to write.")] = 1,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove one problem: print the proof, its score and its critiques.

    Without --using the nano model answers, which knows only the problems of `proofloop domains
    pose`. If the run file has a [search], only the best proof is printed. If the store already has
    proofs of this problem with the same settings, they are printed and no model is called.
    """
    question = _text(problem)
    with stopping_on_signal() as stopping, ProgressLine() as line:
        found = api.prove(
            question,
            using=using,
            proofs=proofs,
            store=open_store(store),
            on_progress=lambda progress: line.show("proving", progress),
            stopping=stopping,
        )
    rows = [_fields(one) for one in found]
    print(json.dumps(rows, indent=2) if as_json else printable("\n\n".join(map(_page, rows))))
    if not any(one.proof for one in found):
        raise typer.Exit(1)


def _text(problem: str) -> str:
    """The text of the problem, read from a file if the argument is a path."""
    is_file = os.path.isfile(problem)  # false for a text that is too long for a path
    if not is_file and _looks_like_a_path(problem):
        raise ConfigError(
            f"there is no file {problem[:60]!r}",
            "give the text of a problem, or the path of a text file with it",
        )
    text = _read(Path(problem)) if is_file else problem
    if not text.strip():
        raise ConfigError(
            "the problem is empty", "give its text, or the path of a text file with it"
        )
    return text.strip()


def _looks_like_a_path(problem: str) -> bool:
    """Whether one word is more likely a path than a formula, or a sentence without spaces."""
    has_suffix = problem.lower().endswith(TEXT_SUFFIXES) and len(problem.split()) == 1
    return has_suffix or PATH.fullmatch(problem) is not None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", "give a text file in UTF-8") from error


def _fields(found: ProofResult) -> dict[str, Any]:
    """A proof with its label and critiques, as JSON fields."""
    critiques = [
        {
            "score": critique.score,
            "outcome": critique.verdict.outcome,
            "confirmed": critique.confirmed,
            "analysis": critique.analysis,
        }
        for critique in found.critiques
    ]
    fields = {
        "proof": found.proof,
        "format": found.verdict.model_dump(exclude={"score"}),
        "self_score": found.self_score,
        "self_evaluation": found.self_evaluation,
        "outcome": found.outcome,
        "score": found.score,
        "solved": found.solved,
        "critiques": critiques,
    }
    return fields | ({"exact_checker": found.finding.score} if found.finding else {})


def _page(found: dict[str, Any]) -> str:
    """A proof as text."""
    lines = [found["proof"] or f"(no readable proof: {found['format']['reason']})", ""]
    solved = ", solved" if found["solved"] else ""
    lines.append(
        f"Score: {found['score']} ({found['outcome']}{solved}); self-score: {found['self_score']}"
    )
    if "exact_checker" in found:
        lines.append(
            f"Score by the exact checker (not seen by any model): {found['exact_checker']}"
        )
    for number, critique in enumerate(found["critiques"], 1):
        confirmed = {None: "", True: ", confirmed", False: ", not confirmed"}[critique["confirmed"]]
        score = critique["score"] if critique["outcome"] == "valid" else critique["outcome"]
        lines += ["", f"Critique {number} (score {score}{confirmed}):", critique["analysis"]]
    return "\n".join(lines)
