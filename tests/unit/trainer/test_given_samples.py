"""Given proofs and analyses become groups: whom they train, and what their answers earn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.schema import keys
from proofloop.schema.records import Given, Label, MetaCritique, Score, Verdict
from proofloop.store import LocalStore, put_record
from proofloop_trainer.samples import Group
from tests.builders import MALFORMED, RUN, judgement, label, proof, runspec, valid
from tests.unit.trainer.groups import learned_groups
from tests.unit.trainer.test_samples import add_critique, add_proof, sampled, undecided

ANALYSIS = "c000000-000"
JOINT = {"verifier": {"steps": 1, "train_on": "all"}}
APART = {"verifier": {"steps": 1}, "meta_verifier": {"steps": 1}}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def spec_of(training: dict[str, Any], **sections: Any) -> RunSpec:
    labeling = {"n": 3, "m": 2, "k": 1, "stop_early": False}
    return runspec(problems={"material": True}, labeling=labeling, training=training, **sections)


def add_analysis(store: LocalStore, quality: Score | None, *verdicts: Verdict) -> Label:
    """A given analysis with this grade and its meta-critiques."""
    given = Given(is_analysis=True, quality=quality, by="expert")
    put_record(store, keys.proof(RUN, ANALYSIS), proof(id=ANALYSIS, group=ANALYSIS, given=given))
    for number, verdict in enumerate(verdicts):
        provenance = sampled(store, ANALYSIS, f"meta-0-{number}", verdict)
        put_record(
            store,
            keys.meta_critique(RUN, ANALYSIS, 0, number),
            MetaCritique(analysis="", verdict=verdict, provenance=provenance),
        )
    return label(None, proof_id=ANALYSIS, group=ANALYSIS, outcome="rejected", kind="graded")


def rewards(groups: list[Group]) -> list[list[float]]:
    return [[answer.reward for answer in group.answers] for group in groups]


def test_meta_critiques_of_a_given_analysis_earn_by_its_grade(store: LocalStore) -> None:
    graded = add_analysis(store, 0.5, valid(0.5), MALFORMED)
    (group,) = learned_groups("meta_verifier", [graded], spec_of(APART), store)
    right, unreadable = group.answers
    assert (right.key, right.role, right.group, right.reward) == (
        keys.meta_critique(RUN, ANALYSIS, 0, 0),
        "meta_verifier",
        f"{ANALYSIS}/0",
        1.0,
    )
    assert right.reward_parts == {"format": 1.0, "score": 1.0, "predicted_score": 0.5}
    assert (unreadable.reward, unreadable.reward_parts) == (0.0, {"format": 0.0})
    assert group.is_flawed


def test_a_given_analysis_trains_a_verifier_that_trains_alone(store: LocalStore) -> None:
    graded = add_analysis(store, 1.0, valid(0.0), valid(1.0))
    assert rewards(learned_groups("verifier", [graded], spec_of(JOINT), store)) == [[0.0, 1.0]]
    assert learned_groups("verifier", [graded], spec_of(APART), store) == []
    assert learned_groups("generator", [graded], spec_of(JOINT), store) == []


def test_an_analysis_without_a_grade_trains_nothing(store: LocalStore) -> None:
    graded = add_analysis(store, None, valid(0.0), valid(1.0))
    assert learned_groups("meta_verifier", [graded], spec_of(APART), store) == []


def test_all_meta_critiques_of_a_given_analysis_train(store: LocalStore) -> None:
    graded = add_analysis(store, 1.0, *(valid(1.0),) * 12)
    assert rewards(learned_groups("meta_verifier", [graded], spec_of(APART), store)) == [[1.0] * 12]


def test_critiques_of_a_given_proof_earn_by_the_given_score(store: LocalStore) -> None:
    for index, score in enumerate((0.0, 1.0)):
        add_critique(store, index, valid(score), quality=0.5)
    add_proof(store, 0, valid(1.0))
    graded = label(0.0, proof_id="p1-000", group="p1-000", outcome="rejected", kind="graded")
    assert rewards(learned_groups("verifier", [graded], spec_of(JOINT), store)) == [[0.5, 0.0]]
    without_meta = spec_of(JOINT, reward={"meta": False})
    assert rewards(learned_groups("verifier", [graded], without_meta, store)) == [[1.0, 0.0]]
    assert learned_groups("meta_verifier", [graded], spec_of(APART), store) == []


def test_an_unknown_r_meta_matters_only_where_r_score_is_not_0(store: LocalStore) -> None:
    for index, score in enumerate((0.0, 1.0)):
        verdict = valid(score)
        add_critique(store, index, verdict, quality=None)
        unknown = judgement(index, score, quality=None)
        put_record(store, keys.judgement(RUN, "p1-000", index), unknown)
    add_proof(store, 0, valid(1.0))
    graded = label(1.0, proof_id="p1-000", group="p1-000", outcome="accepted", kind="graded")
    assert rewards(learned_groups("verifier", [graded], spec_of(JOINT), store)) == [[0.0]]


def test_a_group_of_one_answer_trains_only_where_all_groups_do(store: LocalStore) -> None:
    graded = add_analysis(store, 1.0, valid(1.0))
    assert rewards(learned_groups("verifier", [graded], spec_of(JOINT), store)) == [[1.0]]
    assert learned_groups("meta_verifier", [graded], spec_of(APART), store) == []


# -- R_Y as the mean of the critiques' scores


MEAN = {"proof_score": "mean"}


def proof_rewards(store: LocalStore, labels: list[Label]) -> list[float]:
    spec = spec_of({"generator": {"steps": 1, "train_on": "all"}}, reward=MEAN)
    (group,) = learned_groups("generator", labels, spec, store)
    return [answer.reward_parts.get("proof", -1.0) for answer in group.answers]


def test_the_mean_of_readable_critiques_is_the_proof_score_of_undecided_proofs_too(
    store: LocalStore,
) -> None:
    labels = [add_proof(store, 0, valid(1.0), **undecided()), add_proof(store, 1, valid(1.0))]
    for index, verdict in enumerate((valid(1.0), MALFORMED, valid(0.5))):
        add_critique(store, index, verdict)
    assert proof_rewards(store, labels) == [0.75, 0.0]
