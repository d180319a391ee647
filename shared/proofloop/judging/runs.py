"""The run that judges given proofs: its spec from a run file, and its cases in portions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proofloop.runs.given import PORTION, cases_of, portions_of
from proofloop.schema.given import GivenCase, GivenPortion, PeoplesGrade
from proofloop.schema.ids import case_id, proof_id
from proofloop.store import Store

PROVING = ("refinement", "search", "training", "fine_tuning")
"""The sections of a run file that have no meaning where proofs are given."""


def judging_fields(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of a run that judges given proofs, made from those of a run file.

    Every proof gets all n critiques and m meta-critiques: the figures compare numbers of critiques.
    """
    kept = {key: value for key, value in fields.items() if key not in PROVING}
    return {
        **kept,
        "name": name,
        "problems": {"material": True, "has_proofs": True, "checker": checker_of(fields)},
        "labeling": {**(fields.get("labeling") or {}), "by": "rule", "stop_early": False},
    }


def checker_of(fields: Mapping[str, Any]) -> str | None:
    """The domain of the run file's problems: its checker, and its default prompts, are kept."""
    problems = fields.get("problems") or {}
    found: str | None = problems.get("checker") or problems.get("domain")
    return found


def run_name(using: str, data: Path, ending: str = "") -> str:
    """The default name of the run: the names of run file and data file, then `ending`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{using}-on-{data.stem}").strip("-.")
    return f"{name[: 100 - len(ending)]}{ending}"


def portions(store: Store, run_id: str, cases: Sequence[GivenCase]) -> Iterator[GivenPortion]:
    """The cases as the run's portions: those that are stored keep their sizes, new ones follow."""
    begin = 0
    for stored in portions_of(store, run_id):
        yield GivenPortion(cases=tuple(cases[begin : begin + len(stored.cases)]))
        begin += len(stored.cases)
    for start in range(begin, len(cases), PORTION):
        yield GivenPortion(cases=tuple(cases[start : start + PORTION]))


def graded_proofs(store: Store, run_id: str) -> Iterator[tuple[str, str, PeoplesGrade]]:
    """The id, the origin and the grade of each proof that people graded, in order."""
    for number, case in enumerate(cases_of(store, run_id)):
        if case.graded is not None:
            origin = case.given.origin if case.given else ""
            yield proof_id(case_id(number), 0), origin, case.graded
