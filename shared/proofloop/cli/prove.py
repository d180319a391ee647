"""`proofloop prove`: runs the whole pipeline on one problem and prints its proofs."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from proofloop.cli.common import (
    ProgressLine,
    StoreOption,
    open_engines,
    open_store,
    stopping_on_signal,
)
from proofloop.cli.files import read_run
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.method.domains.nano import check_proof
from proofloop.pipeline.embedded import LocalWalk, create_run, is_complete, planned_proofs
from proofloop.report.samples import printable
from proofloop.runs.figures import critiques_of, proofs_of
from proofloop.runs.labels import find_label
from proofloop.runs.search_driver import searches_of
from proofloop.runs.spec import find_spec, what_decides
from proofloop.schema import keys
from proofloop.schema.records import Judgement, Proof, digest
from proofloop.store import LocalStore, Store, find_record, get_record


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

    Without --using the nano model answers, which knows only the problems of `proofloop nano pose`.
    If the run file has a [search], only the best proof is printed. If the store already has proofs
    of this problem with the same settings, they are printed and no model is called.
    """
    data = open_store(store)
    question = _text(problem)
    if using is None:
        _check(question, "")
    spec = _spec(question, using, proofs, data)
    if find_spec(data, spec.name) is None or not is_complete(data, spec):
        _walk(data, spec)
    found = [_fields(data, proof) for proof in _proofs(data, spec)]
    if using is None:
        found = [{**one, "exact_checker": _check(question, one["proof"])} for one in found]
    print(json.dumps(found, indent=2) if as_json else printable("\n\n".join(map(_page, found))))
    if not any(one["proof"] for one in found):
        raise typer.Exit(1)


def _walk(store: Store, spec: RunSpec) -> None:
    engines = open_engines(store)
    try:
        engines.check(spec)
        create_run(store, spec, resume=True)
        with (
            stopping_on_signal() as stopping,
            ProgressLine() as line,
            LocalWalk(store, engines, spec, stopping=stopping) as walk,
        ):
            walk.run(planned_proofs(spec), lambda progress: line.show("proving", progress))
    finally:
        engines.close()


def _text(problem: str) -> str:
    """The text of the problem, read from a file if the argument is a path."""
    is_file = os.path.isfile(problem)  # false for a text that is too long for a path
    if not is_file and len(problem.split()) == 1:
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


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", "give a text file in UTF-8") from error


def _check(question: str, proof: str) -> float:
    """The score of a proof by nano's exact checker. Raises ConfigError if the problem is not a nano
    problem.
    """
    try:
        return check_proof(question, proof).score
    except LookupError as error:
        raise ConfigError(
            f"the nano model cannot prove {question[:60]!r}: {error}",
            "give a run file with your own engine by --using",
        ) from error


def _spec(question: str, using: Path | None, proofs: int, store: Store) -> RunSpec:
    """The run for this problem. Its name holds a digest of all settings that can change the
    answer.
    """
    folder = store.root if isinstance(store, LocalStore) else load_settings().cache
    file = _problem_file(question, folder / "problems")
    problems: dict[str, Any] = {"file": file, "proofs_per_problem": proofs}
    if using is None:
        answer = {"max_tokens": 96}
        fields = {
            "prompts": "nano",
            "sampling": dict.fromkeys(("generator", "verifier", "meta_verifier"), answer),
        }
        spec = parse_runspec({"name": "prove", "problems": problems, **fields}, "proofloop prove")
    else:
        base = read_run(using)
        spec = parse_runspec(
            {**base.model_dump(exclude={"problems", "training"}), "problems": problems}, str(using)
        )
    return spec.model_copy(update={"name": f"prove-{digest(question + what_decides(spec))}"})


def _problem_file(question: str, folder: Path) -> Path:
    """Write the problem as a CSV file of one row. Raises ConfigError.

    Not as JSON, because JSON is checked for LaTeX commands with one backslash.
    """
    file = folder / f"{digest(question)}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerows([["question"], [question]])
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the problem is not Unicode text: {error}", "give a text file in UTF-8"
        ) from error
    return file


def _proofs(store: Store, spec: RunSpec) -> Iterator[Proof]:
    """All proofs of the run; with a search only the best one."""
    if not spec.search.rounds:
        yield from proofs_of(store, spec.name)
    for search in searches_of(store, spec.name):
        if search.best:
            yield get_record(store, keys.proof(spec.name, search.best), Proof)


def _fields(store: Store, proof: Proof) -> dict[str, Any]:
    """A proof with its label and critiques, as JSON fields."""
    label = find_label(store, proof.run_id, proof.id)
    critiques = []
    for critique in critiques_of(store, proof.run_id, proof.id):
        judgement = find_record(
            store, keys.judgement(proof.run_id, proof.id, critique.index), Judgement
        )
        critiques.append(
            {
                "score": critique.verdict.score,
                "outcome": critique.verdict.outcome,
                "confirmed": judgement.confirmed if judgement else None,
                "analysis": critique.analysis,
            }
        )
    return {
        "proof": proof.solution,
        "format": proof.verdict.model_dump(exclude={"score"}),
        "self_score": proof.verdict.score,
        "self_evaluation": proof.self_analysis,
        "outcome": label.outcome if label else None,
        "score": label.score if label else None,
        "solved": bool(label and label.solved),
        "critiques": critiques,
    }


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
