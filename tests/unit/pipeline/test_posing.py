"""Which version of a role in training a case meets, and which roles judge given material."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.pipeline.posing import Posing, version_of
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.events import Event, ProblemPosed, ProofReviewed
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.schema.records import Given, ModelRole, Proof
from proofloop.store import LocalStore, get_record
from tests.builders import runspec

PROOF = GivenCase(question="Q", solution="S", given=Given(score=1.0), verifier_version="v-own")
ANALYSIS = GivenCase(question="Q", solution="S", analysis="A", meta_verifier_version="m-own")


def training(ahead: float = 1.0, **roles: int) -> RunSpec:
    """Each role takes so many steps of two problems."""
    return runspec(
        problems={"material": True},
        labeling={"stop_early": False},
        training={
            "problems": 2,
            "ahead": ahead,
            **{role: {"steps": steps} for role, steps in roles.items()},
        },
    )


@pytest.mark.parametrize(
    ("ahead", "number", "taken", "step"),
    [
        (1.0, 0, 0, 0),
        (1.0, 1, 0, 0),
        (1.0, 2, 1, 1),
        (1.0, 2, 3, 1),  # resumed: the case belongs to the first version
        (1.0, 5, 2, 2),
        (1.0, 4, 1, 1),  # a step was skipped, because its labels taught nothing
        (1.0, 9, 3, 3),  # all steps are taken
        (2.0, 0, 3, 3),
        (2.0, 5, 1, 1),
    ],
)
def test_a_case_meets_the_version_of_its_step(
    ahead: float, number: int, taken: int, step: int
) -> None:
    spec = training(ahead, verifier=3)
    expected = keys.model(spec.name, "verifier", step) if step else "m-1"
    assert version_of(spec, "verifier", number, {"verifier": taken}) == expected


def test_a_role_that_begins_later_serves_its_first_version_until_then() -> None:
    spec = runspec(
        problems={"material": True},
        training={"problems": 2, "ahead": 1.0, "generator": {"steps": 4, "begin": 2}},
    )
    versions = [version_of(spec, "generator", number, {"generator": 4}) for number in (0, 5, 6, 8)]
    assert versions == [
        "m-1",
        "m-1",
        keys.model("r1", "generator", 1),
        keys.model("r1", "generator", 2),
    ]


def entered(
    store: LocalStore, spec: RunSpec, *cases: GivenCase, steps: Mapping[str, int] | None = None
) -> list[Event]:
    """The events with which these cases enter a run."""
    create_run(store, spec, resume=True, portions=[GivenPortion(cases=cases)])
    posing = Posing(store, spec, lambda: steps or {})
    return [
        event for _, entries in posing.problems() for entry in entries for event in entry.events()
    ]


def judges(store: LocalStore, case: str) -> tuple[str, str]:
    found = get_record(store, keys.proof("r1", f"{case}-000"), Proof)
    return found.verifier_version, found.meta_verifier_version


BOTH: dict[str, int] = {"verifier": 2, "meta_verifier": 2}


@pytest.mark.parametrize(
    ("roles", "proof", "analysis"),
    [
        ({}, ("v-own", ""), "m-own"),
        ({"verifier": 2}, ("runs/r1/models/verifier/000001", ""), "runs/r1/models/verifier/000001"),
        ({"meta_verifier": 2}, ("v-own", "runs/r1/models/meta_verifier/000001"),
            "runs/r1/models/meta_verifier/000001"),
        (BOTH, ("runs/r1/models/verifier/000001", "runs/r1/models/meta_verifier/000001"),
            "runs/r1/models/meta_verifier/000001"),
    ],
)  # fmt: skip
def test_given_material_meets_the_judges_in_training_or_those_that_it_names(
    tmp_path: Path, roles: dict[ModelRole, int], proof: tuple[str, str], analysis: str
) -> None:
    store, spec = LocalStore(tmp_path), training(ahead=2.0, **roles)
    entered(store, spec, PROOF, ANALYSIS, steps=dict.fromkeys(roles, 1))
    assert judges(store, "c000000") == proof
    assert judges(store, "c000001")[1] == analysis


@pytest.mark.parametrize(("ahead", "named"), [(1.0, "runs/r1/models/generator/000001"), (2.0, "")])
def test_on_policy_the_generator_is_named(tmp_path: Path, ahead: float, named: str) -> None:
    spec = training(ahead, generator=2)
    cases = [GivenCase(question=f"Q{number}") for number in range(3)]
    events = entered(LocalStore(tmp_path), spec, *cases, steps={"generator": 1})
    last = events[-1]
    assert isinstance(last, ProblemPosed)
    assert (last.problem_id, last.generator_version) == ("c000002", named)


def test_a_case_that_enters_again_keeps_the_version_that_it_met(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), training(ahead=2.0, verifier=2)
    entered(store, spec, PROOF)
    again = entered(store, spec, PROOF, steps={"verifier": 1})
    assert {getattr(event, "verifier_version", None) for event in again} == {"m-1"}


def test_a_given_analysis_is_announced_as_reviewed(tmp_path: Path) -> None:
    events = entered(LocalStore(tmp_path), training(), ANALYSIS)
    assert events == [ProofReviewed(run_id="r1", proof_id="c000000-000", index=0)]


@pytest.mark.parametrize(("score", "critiques"), [(1.0, 4), (None, 2)])
def test_a_graded_proof_gets_all_critiques_at_once(
    tmp_path: Path, score: Any, critiques: int
) -> None:
    case = PROOF.model_copy(update={"given": Given(score=score)})
    spec = runspec(problems={"material": True})
    assert len(entered(LocalStore(tmp_path), spec, case)) == critiques
