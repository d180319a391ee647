"""Which roles a run needs, and how many training steps its problems allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proofloop.runs.planned import owes_steps, roles_of
from proofloop.schema import keys
from proofloop.store import LocalStore
from tests.builders import RUN, runspec

TRAINS: dict[str, Any] = {
    "labeling": {"stop_early": False},
    "training": {"problems": 2, "verifier": {"steps": 2}},
}


@pytest.mark.parametrize(
    ("sections", "roles"),
    [
        ({}, "generator verifier meta_verifier labeler"),
        ({"problems": {"given_proofs": "x"}}, "verifier meta_verifier labeler"),
        ({"problems": {"given_analyses": "x"}}, "meta_verifier labeler"),
        ({"problems": {"material": True}}, "generator verifier meta_verifier labeler"),
        ({"labeling": {"by": "checker"}}, "generator labeler"),
        ({"problems": {"given_proofs": "x"}, **TRAINS}, "verifier meta_verifier labeler trainer"),
    ],
)
def test_a_run_names_the_roles_that_it_needs(sections: dict[str, Any], roles: str) -> None:
    assert " ".join(roles_of(runspec(**sections))) == roles


@pytest.mark.parametrize(
    ("problems", "skipped", "steps", "owes"),
    [
        (1, 0, 0, False),
        (2, 0, 0, True),
        (2, 0, 1, False),
        (2, 1, 0, False),
        (5, 1, 1, True),
        (9, 0, 2, False),
    ],
)
def test_a_role_owes_a_step_for_every_batch_that_its_problems_fill(
    tmp_path: Path, problems: int, skipped: int, steps: int, owes: bool
) -> None:
    store = LocalStore(tmp_path)
    spec = runspec(**TRAINS)
    for number in range(skipped):
        store.put_if_absent(keys.skipped_problem(RUN, "verifier", f"p{number}"), b"{}")
    assert owes_steps(store, spec, problems, {"verifier": steps}) == owes
