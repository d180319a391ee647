"""Training on given material, on nano: D_v for the verifier, D_mv for the meta-verifier, both for a
verifier that learns both roles. With `ahead = 1` a killed trainer changes no batch and no weight.
"""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.errors import ProofloopError
from proofloop.method.domains.nano import (
    NanoDomain,
    check_critique,
    check_proof,
    find_defects,
    parse_question,
    render_proof,
)
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.given import keep_portion
from proofloop.runs.model_registry import published_versions
from proofloop.schema import keys
from proofloop.schema.events import ModelPublished, ProofLabeled
from proofloop.schema.given import GivenCase
from proofloop.schema.records import (
    MODEL_ROLES,
    Given,
    Label,
    ModelRole,
    TrainingBatch,
    TrainingStep,
)
from proofloop.store import LocalStore, get_record, put_record
from proofloop.store.model_folders import manifest_files
from proofloop.worker.engine_pool import Engines
from proofloop.worker.tools import Tools
from tests.integration.test_trainer import DyingStore, Killed

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.nano.claims import imperfect_claims
from proofloop_trainer.nano.demonstrations import render_critique
from proofloop_trainer.nano.flaws import ORDINARY, write_proof
from proofloop_trainer.train import Trainer

pytestmark = pytest.mark.usefixtures("quiet_log")

RUN = "given"
PROBLEMS = 4
"""Cases in a step."""


def case_of(number: int, *, is_analysis: bool) -> GivenCase:
    """A proof of nano with its grade, or an analysis of one with its quality."""
    rng = random.Random(number)
    question = NanoDomain().pose(number, split="train", seed=0).question
    chain = parse_question(question)
    lines = write_proof(rng, chain, 0.5, ORDINARY)
    solution = render_proof(lines)
    if not is_analysis:
        given = Given(score=check_proof(question, solution).score, by="checker")
        return GivenCase(question=question, solution=solution, given=given)
    claims = imperfect_claims(rng, chain, lines)
    analysis = render_critique(claims, 0.5 if find_defects(chain, lines) else 1.0)
    quality = check_critique(question, solution, analysis).quality
    given = Given(is_analysis=True, quality=quality, by="checker")
    return GivenCase(question=question, solution=solution, analysis=analysis, given=given)


def proofs(count: int) -> list[GivenCase]:
    return [case_of(number, is_analysis=False) for number in range(count)]


def analyses(count: int) -> list[GivenCase]:
    return [case_of(100 + number, is_analysis=True) for number in range(count)]


def training(*roles: ModelRole, steps: int = 2) -> dict[str, Any]:
    settings = {"epochs": 1, "learning_rate": 1e-3}
    of_role = {"steps": steps, "train_on": "all", "settings": settings}
    return {"problems": PROBLEMS, "ahead": 1.0, **dict.fromkeys(roles, of_role)}


def spec_of(*roles: ModelRole, steps: int = 2, **sections: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "name": RUN,
        "prompts": "nano",
        "problems": {"material": True},
        "sampling": {role: {"max_tokens": 96} for role in MODEL_ROLES},
        "labeling": {"n": 4, "m": 0, "given_m": 4, "k": 1, "stop_early": False},
        "reward": {"meta": False},
        "training": training(*roles, steps=steps),
        **sections,
    }
    return parse_runspec(fields, "a test")


def run(folder: Path, spec: RunSpec, *portions: Sequence[GivenCase]) -> LocalStore:
    """Run each portion after the one before, as a curriculum does."""
    store = LocalStore(folder)
    engines = Engines(store, folder / "cache")
    create_run(store, spec, resume=False)
    for number, portion in enumerate(portions):
        keep_portion(store, RUN, number, portion)
        with EmbeddedPipeline(store, engines, spec) as pipeline:
            pipeline.run()
    engines.close()
    return store


def batches(store: LocalStore, role: ModelRole) -> list[TrainingBatch]:
    return [get_record(store, key, TrainingBatch) for key in store.list(keys.batches(RUN, role))]


def steps(store: LocalStore, role: ModelRole) -> list[TrainingStep]:
    return [get_record(store, key, TrainingStep) for key in store.list(keys.steps(RUN, role))]


def learned(store: LocalStore) -> dict[str, str]:
    """The digest of the weights of every version."""
    versions = [each for role in MODEL_ROLES for each in published_versions(store, RUN, role)]
    return {each: manifest_files(store, each)["model.safetensors"] for each in versions}


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """The verifier learns D_v, two steps of four proofs each."""
    return run(tmp_path_factory.mktemp("verified"), spec_of("verifier"), proofs(2 * PROBLEMS))


def test_a_verifier_learns_from_the_given_scores_step_by_step(verified: LocalStore) -> None:
    first, second = batches(verified, "verifier")
    names = [f"c{number:06d}-000" for number in range(2 * PROBLEMS)]
    assert (list(first.problems), list(second.problems)) == (names[:PROBLEMS], names[PROBLEMS:])
    for batch in (first, second):
        assert [sample.key for sample in batch.samples] == [
            keys.critique(RUN, name, index) for name in batch.problems for index in range(4)
        ]
    assert {sample.model_version for sample in first.samples} == {"nano-base"}
    assert {sample.model_version for sample in second.samples} == {keys.model(RUN, "verifier", 1)}
    for case, name in zip(proofs(PROBLEMS), first.problems, strict=True):
        assert case.given is not None and case.given.score is not None
        for sample in (each for each in first.samples if each.group == name):
            said = sample.reward_parts.get("predicted_score")
            assert sample.reward == (0.0 if said is None else 1 - abs(said - case.given.score))
    assert len({*learned(verified).values()}) == 2


def test_the_figures_of_a_step_are_over_all_its_cases(verified: LocalStore) -> None:
    for step in steps(verified, "verifier"):
        assert step.figures["groups"] == PROBLEMS
        assert step.figures["readable"] > 0.5
        assert any(name.startswith("always-") for name in step.figures)


MADE_LATER = ("labels", "batches", "skipped", "steps", "checkpoints", "models", "served")


def untrained(finished: LocalStore, folder: Path) -> LocalStore:
    """The answers of a finished run, without its labels and steps."""
    left_out = shutil.ignore_patterns(*MADE_LATER)
    shutil.copytree(finished.root / keys.run(RUN), folder / keys.run(RUN), ignore=left_out)
    shutil.copytree(finished.root / keys.SPECS, folder / keys.SPECS)
    return LocalStore(folder)


def deliver(store: LocalStore, labels: Sequence[Label], trainer: Trainer) -> list[str]:
    """Store the labels and deliver their messages; the versions that were announced."""
    tools = Tools(store, lambda *_: pytest.fail("the trainer asks no engine"))
    found = []
    for label in labels:
        put_record(store, keys.label(RUN, label.proof_id), label)
        for event in trainer.train(ProofLabeled.of(label), tools):
            assert isinstance(event, ModelPublished)
            found.append(event.version)
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "moment", [f"wrote {keys.all_batches(RUN)}", f"write {keys.all_checkpoints(RUN)}"]
)
def test_killed_trainers_and_labels_in_any_order_change_no_batch_and_no_weight(
    verified: LocalStore, tmp_path: Path, moment: str, seed: int
) -> None:
    store, rng = untrained(verified, tmp_path), random.Random(seed)
    found = [get_record(verified, key, Label) for key in verified.list(keys.labels(RUN))]
    for step in range(2):  # the second step's cases are posed after the first step
        labels = rng.sample(found[step * PROBLEMS : (step + 1) * PROBLEMS], PROBLEMS)
        with pytest.raises(Killed):
            deliver(DyingStore(store.root, moment), labels, Trainer())
        again = rng.sample(labels, PROBLEMS)
        assert keys.model(RUN, "verifier", step + 1) in deliver(store, again, Trainer())
    assert batches(store, "verifier") == batches(verified, "verifier")
    assert learned(store) == learned(verified)


def test_no_model_stays_open_between_two_portions_of_a_run(tmp_path: Path) -> None:
    """Several processes that train together would each keep its part for good."""
    store = run(tmp_path, spec_of("verifier"), proofs(PROBLEMS))
    assert list(learned(store)) == [keys.model(RUN, "verifier", 1)]
    learners = [one for one in gc.get_objects() if type(one) is GrpoLearner]
    assert not any(learner.is_open for learner in learners)


def test_a_verifier_that_trains_alone_learns_proofs_and_analyses_in_one_batch(
    tmp_path: Path,
) -> None:
    portion = [*proofs(3), *analyses(1)]
    again = [*proofs(6)[3:], *analyses(2)[1:]]
    labeling = {"n": 4, "m": 2, "given_m": 4, "k": 1, "stop_early": False}
    spec = spec_of("verifier", labeling=labeling, reward={"meta": True})
    store = run(tmp_path, spec, portion, again)
    for number, batch in enumerate(batches(store, "verifier")):
        roles = [sample.role for sample in batch.samples]
        assert roles == ["verifier"] * 12 + ["meta_verifier"] * 4
        version = keys.model(RUN, "verifier", number) if number else "nano-base"
        assert {sample.model_version for sample in batch.samples} == {version}
        assert batch.role == "verifier" and "meta" in batch.reward_parts
    figures = steps(store, "verifier")[0].figures
    assert {"readable verifier", "readable meta-verifier", "readable"} <= set(figures)
    assert any("meta-verifier" in name for name in figures if name.startswith("always"))
    assert list(learned(store)) == [keys.model(RUN, "verifier", step) for step in (1, 2)]


def test_a_verifier_refuses_analyses_judged_at_another_temperature(tmp_path: Path) -> None:
    sampling = {role: {"max_tokens": 96} for role in MODEL_ROLES}
    spec = spec_of(
        "verifier", sampling=sampling | {"meta_verifier": {"max_tokens": 96, "temperature": 0.5}}
    )
    with pytest.raises(ProofloopError, match=r"sampled at temperature 0\.5, but .* answers at 1"):
        run(tmp_path, spec, analyses(PROBLEMS))


def test_a_meta_verifier_learns_from_given_qualities_alone(tmp_path: Path) -> None:
    store = run(tmp_path, spec_of("meta_verifier", steps=1), analyses(PROBLEMS))
    (batch,) = batches(store, "meta_verifier")
    assert {sample.role for sample in batch.samples} == {"meta_verifier"}
    for case, name in zip(analyses(PROBLEMS), batch.problems, strict=True):
        assert case.given is not None and case.given.quality is not None
        for sample in (each for each in batch.samples if each.group == f"{name}/0"):
            said = sample.reward_parts.get("predicted_score")
            assert sample.reward == (0.0 if said is None else 1 - abs(said - case.given.quality))
    assert list(learned(store)) == [keys.model(RUN, "meta_verifier", 1)]


def test_two_judges_learn_side_by_side_each_from_its_own_cases(tmp_path: Path) -> None:
    spec = spec_of("verifier", "meta_verifier", steps=1)
    store = run(tmp_path, spec, [*proofs(2), *analyses(2)])
    (verifier,), (meta,) = batches(store, "verifier"), batches(store, "meta_verifier")
    assert {sample.role for sample in verifier.samples} == {"verifier"}
    assert {sample.role for sample in meta.samples} == {"meta_verifier"}
    assert verifier.problems == meta.problems
