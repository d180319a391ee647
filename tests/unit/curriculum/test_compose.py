"""The runs that stages are composed of."""

from __future__ import annotations

import pytest

from proofloop.config.curriculum_file import ColdStart, CurriculumSpec, StageKind
from proofloop.curriculum import compose
from proofloop.curriculum.compose import everywhere

SPEC = CurriculumSpec.model_validate(
    {
        "name": "c",
        "seed": 7,
        "enhanced": {"steps": 6, "groups": 5, "meta_groups": 2, "ahead": 3.0},
        "verifier": {"steps": 4, "groups": 3, "settings": {"kl_coefficient": 0.25}},
        "prices": {"per_engine_hour": 2.0},
    }
)


def test_a_proof_is_sampled_without_any_judge_where_a_checker_labels_it():
    run = compose.proving(SPEC, "D_v-0", everywhere("v"), proofs=2)
    assert (run.name, run.seed, run.how_to_read) == ("c-D_v-0", 7, "strict")
    assert (run.problems.material, run.problems.checker, run.labeling.by) == (
        True,
        "nano",
        "checker",
    )
    assert (run.problems.proofs_per_problem, run.models.generator) == (2, "v")
    assert run.prices.per_engine_hour == 2.0


def test_all_critiques_are_requested_once_each():
    run = compose.reviewing(SPEC, "gate", everywhere("v"), 2, 3)
    rule = run.labeling
    assert (rule.n, rule.m, rule.stop_early, rule.retry_unreadable) == (2, 3, False, False)
    assert run.reward.meta
    assert not compose.reviewing(SPEC, "gate", everywhere("v"), 2).reward.meta


def test_one_role_may_sample_at_another_temperature():
    hot = compose.at_temperature(SPEC, "generator", 1.5)
    run = compose.proving(SPEC, "D_v-1", everywhere("v"), **hot)
    sampling = run.sampling
    assert (sampling.generator.temperature, sampling.verifier.temperature) == (1.5, 1.0)
    assert sampling.generator.max_tokens == SPEC.sampling.generator.max_tokens


@pytest.mark.parametrize(
    ("kind", "role", "groups", "ahead"),
    [("verifier", "verifier", 3, 1.0), ("enhanced", "verifier", 5, 3.0)],
)
def test_every_group_of_a_step_trains_its_role(
    kind: StageKind, role: str, groups: int, ahead: float
):
    run = compose.reviewing(
        SPEC, f"1-{kind}", everywhere("v"), 8, **compose.training(SPEC, kind, reference="cold")
    )
    training = run.training
    assert (training.roles, training.problems, training.ahead) == ((role,), groups, ahead)
    assert (training.verifier.train_on, training.verifier.reference) == ("all", "cold")


def test_a_step_size_falls_until_the_last_step_of_the_stage():
    training = compose.training(SPEC, "verifier")["training"]["verifier"]
    assert training["settings"] == {
        "seed": 7,
        "decay_steps": 4,
        "temperature": 1.0,
        "kl_coefficient": 0.25,
    }
    shorter = compose.training(SPEC, "meta_verifier", steps=2)["training"]["meta_verifier"]
    assert (shorter["steps"], shorter["settings"]["decay_steps"]) == (2, 2)


def test_a_generator_is_rewarded_by_the_mean_of_its_judges():
    run = compose.proving_with_judges(SPEC, "1-generator", everywhere("v"), 8, 3)
    assert (run.labeling.n, run.labeling.m, run.labeling.self_m) == (4, 0, 3)
    assert (run.reward.proof_score, run.reward.alpha) == ("mean", 0.76)


def test_a_cold_start_learns_the_domains_demonstrations_or_those_it_names():
    run = compose.cold_start(SPEC, "0-cold_start")
    assert (run.problems.sources, run.fine_tuning.domain, run.fine_tuning.steps) == (
        (),
        "nano",
        600,
    )
    spec = SPEC.model_copy(update={"cold_start": ColdStart(runs=("a", "b"), keep=0.5, steps=9)})
    tuning = compose.cold_start(spec, "0-cold_start").fine_tuning
    assert (tuning.domain, tuning.runs, tuning.keep, tuning.steps) == (None, ("a", "b"), 0.5, 9)


def test_a_consolidation_trains_the_generators_model_on_the_best_answers():
    served = {**everywhere("judge"), "generator": "writer"}
    tuning = compose.consolidation(SPEC, "1-consolidate", served, ["r:verifier"]).fine_tuning
    assert (tuning.start, tuning.runs, tuning.most) == ("writer", ("r:verifier",), 600)
    assert (tuning.keep, tuning.epochs, tuning.learning_rate) == (0.99, 1, 2e-4)
