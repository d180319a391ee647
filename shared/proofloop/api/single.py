"""One problem at a time: prove it, or judge a given proof."""

from __future__ import annotations

import csv
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from proofloop.api.drive import OnProgress, drive_here
from proofloop.api.files import read_run
from proofloop.api.results import ProofResult, best_proofs, read_result
from proofloop.api.run import RunFile, as_store
from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.config.run_file.changes import what_decides
from proofloop.config.run_file.problems import Problems
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.method.domains import Checker, find_checker
from proofloop.method.domains.nano import parse_question
from proofloop.runs.answers import proofs_of
from proofloop.runs.planned import is_complete
from proofloop.runs.spec import find_spec
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.schema.ids import single_call
from proofloop.schema.records import MODEL_ROLES, digest
from proofloop.store import LocalStore, Store
from proofloop.worker.logs import configure_default_events

NANO_FIELDS: dict[str, Any] = {
    "prompts": "nano",
    "sampling": {role: {"max_tokens": 96} for role in MODEL_ROLES},
}


def prove(
    question: str,
    *,
    using: RunFile | None = None,
    proofs: int = 1,
    store: Store | str | Path | None = None,
    on_progress: OnProgress = lambda progress: None,
    stopping: threading.Event | None = None,
) -> list[ProofResult]:
    """Write proofs of one problem, with the engine, models, prompts and labeling of a run file; a
    [search] gives the best proof alone.

    Without `using` the nano model answers, which knows nano problems only. Stored proofs of the
    same problem with the same settings are returned, and no model is called. Raises as `Run.finish`
    does.
    """
    opened = as_store(store)
    spec = _named(_spec(question, using, opened, proofs), "prove", question)
    _drive(opened, spec, on_progress, stopping)
    found = best_proofs if spec.search.rounds else proofs_of
    checker = _checker(using)
    return [read_result(opened, proof, checker) for proof in found(opened, spec.name)]


def judge(
    question: str,
    proof: str,
    *,
    using: RunFile | None = None,
    store: Store | str | Path | None = None,
    on_progress: OnProgress = lambda progress: None,
    stopping: threading.Event | None = None,
) -> ProofResult:
    """Have the verifier and the meta-verifier of a run file judge a given proof.

    As in `prove`, nano models answer without `using`, and stored results are returned.
    """
    opened = as_store(store)
    spec = _spec(question, using, opened, 1)
    (problem,) = problems_of(spec)
    case = GivenCase(question=problem.question, solution=proof.strip())
    spec = _named(spec.model_copy(update=_judging()), "judge", f"{question}\0{proof}")
    _drive(opened, spec, on_progress, stopping, portions=[GivenPortion(cases=(case,))])
    (stored,) = proofs_of(opened, spec.name)
    return read_result(opened, stored, _checker(using))


def _judging() -> dict[str, Any]:
    """The sections of a run that writes no proofs."""
    once = {field: RunSpec.model_fields[field].get_default() for field in ("refinement", "search")}
    return {**once, "problems": Problems(material=True)}


def _drive(
    store: Store,
    spec: RunSpec,
    on_progress: OnProgress,
    stopping: threading.Event | None,
    portions: Sequence[GivenPortion] = (),
) -> None:
    if find_spec(store, spec.name) is not None and is_complete(store, spec):
        return
    configure_default_events()
    stopping = stopping or threading.Event()
    drive_here(store, spec, stopping, on_progress, resume=True, portions=portions)


def _checker(using: RunFile | None) -> Checker | None:
    return find_checker("nano" if using is None else _read(using).problems.domain)


def _read(using: RunFile) -> RunSpec:
    return read_run(Path(using) if isinstance(using, str) else using)


def _spec(question: str, using: RunFile | None, store: Store, proofs: int) -> RunSpec:
    """The run of this problem, without a name of its own. Raises ConfigError."""
    if using is None:
        _check_nano(question)
    folder = store.root if isinstance(store, LocalStore) else load_settings().cache
    file = _problem_file(question, folder / "problems")
    problems = {"file": file, "proofs_per_problem": proofs}
    if using is None:
        return parse_runspec({"name": "nano", "problems": problems, **NANO_FIELDS}, "nano")
    fields = _read(using).model_dump(exclude={"problems", "training"})
    return parse_runspec({**fields, "problems": problems}, _origin(using))


def _origin(using: RunFile) -> str:
    return str(using) if isinstance(using, str | Path) else "the run's fields"


def _named(spec: RunSpec, kind: Literal["prove", "judge"], texts: str) -> RunSpec:
    """Named by a digest of all that can change the answer."""
    name = single_call(kind, digest(texts + what_decides(spec)))
    return spec.model_copy(update={"name": name})


def _check_nano(question: str) -> None:
    try:
        parse_question(question)
    except LookupError as error:
        raise ConfigError(
            f"the nano model cannot prove {question[:60]!r}: {error}",
            "give a run file with your own engine by --using, or by `using` in Python",
        ) from error


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
