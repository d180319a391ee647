"""What a run will take, as a range: arithmetic on its budgets, options and what an earlier run
showed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.runs.costs import Spent
from proofloop.runs.planning.capacity import Habits, Observed, RoleCalls
from proofloop.runs.planning.estimate import (
    NOTHING_GIVEN,
    GivenNumbers,
    Range,
    RunEstimate,
    estimate,
)
from proofloop.schema.records import MODEL_ROLES
from tests.builders import runspec

SAMPLING = {role: {"max_tokens": 1000} for role in MODEL_ROLES}
ALL_USED = Habits(attempts=1.0)


def guessed(spec: RunSpec, given: GivenNumbers = NOTHING_GIVEN) -> RunEstimate:
    return estimate(spec, None, ALL_USED, {}, given)


def small(**sections: Any) -> RunSpec:
    """Two problems of two proofs; n = 4, m = 3, k = 2."""
    return runspec(sampling=SAMPLING, **sections)


def test_without_a_measured_run_the_high_end_is_the_most_there_can_be() -> None:
    found = guessed(small())
    calls = {role.role: role.calls for role in found.roles}
    assert (found.problems, found.proofs) == (2, Range(4, 4))
    assert calls == {
        "generator": Range(4, 4),
        "verifier": Range(8, 16),
        "meta_verifier": Range(pytest.approx(4 * 3 * 0.2 * 2), 4 * 5 * 3),
    }
    assert {role.role: role.answer_tokens.high for role in found.roles} == {
        role: ends.high * 1000 for role, ends in calls.items()
    }
    assert found.money is None


def test_a_search_ranges_from_its_first_proofs_to_its_last_round() -> None:
    found = guessed(small(search={"rounds": 2, "keep": 4, "analyses": 2}))
    assert found.proofs == Range(4, 2 * 14)


def test_a_run_without_meta_critiques_has_an_estimate() -> None:
    found = guessed(small(labeling={"n": 4, "m": 0, "self_m": 0, "k": 1}))
    assert {role.role: role.calls.high for role in found.roles}["meta_verifier"] == 0


def test_options_take_the_place_of_guesses() -> None:
    same = dict.fromkeys(MODEL_ROLES, 500.0)
    given = GivenNumbers(answer_tokens=same, prompt_tokens=same, issue_share=0.5)
    found = guessed(small(), given)
    for role in found.roles:
        assert role.answer_tokens == role.prompt_tokens
    assert not any("max_tokens" in reason for reason in found.rests_on)


@pytest.mark.parametrize(
    ("settings", "least_s"),
    [
        ({"requests_per_minute": 1}, 80 * 60),
        ({"tokens_per_minute": 1000}, 80 * 60),
        ({"max_concurrency": 1}, 80 * 50),
    ],
)
def test_rate_limits_and_calls_at_once_take_their_time(
    settings: dict[str, float], least_s: float
) -> None:
    engine = {"kind": "openai", "settings": {"base_url": "http://one/v1", **settings}}
    assert guessed(small()).hours.high * 3600 < 1000
    assert guessed(small(engine=engine)).hours.high * 3600 >= least_s


def test_money_is_that_of_each_role() -> None:
    prices = {
        "per_million_completion_tokens": 1e6,
        "verifier": {"per_million_completion_tokens": 0},
    }
    found = guessed(small(prices=prices))
    assert found.money is not None
    assert found.money.high == sum(
        role.answer_tokens.high for role in found.roles if role.role != "verifier"
    )


def test_a_measured_run_gives_means_and_how_far_its_problems_differ() -> None:
    served = dict.fromkeys(
        MODEL_ROLES, RoleCalls(prompt_tokens=100, answer_tokens=50, call_seconds=2)
    )
    habits = Habits(attempts=1.0, critiqued=0.75, judged=0.0)
    calls = dict.fromkeys(MODEL_ROLES, Spent(1, 100, 50, 2))
    alike = Observed(habits, calls, has_searched=False, tokens_by_problem=(600.0, 600.0, 600.0))
    exact = estimate(small(), alike, habits, served)
    assert exact.tokens == Range(4 * 4 * 150, 4 * 4 * 150)
    differ = Observed(habits, calls, has_searched=False, tokens_by_problem=(300.0, 600.0, 900.0))
    wide = estimate(small(), differ, habits, served)
    assert wide.tokens.low < exact.tokens.low < wide.tokens.high
    # One a proof, whatever happens. An unreadable critique is requested once more.
    calls_of = {role.role: role.calls for role in wide.roles}
    assert calls_of["generator"] == Range(4, 4)
    assert calls_of["verifier"].high == 2 * 4 * 4
    one = Observed(habits, calls, has_searched=False, tokens_by_problem=(600.0,))
    guessed_spread = estimate(small(), one, habits, served)
    assert 0 < guessed_spread.tokens.low < 0.5 * exact.tokens.low  # one problem says little
    assert (
        guessed_spread.rests_on[0]
        == "one problem was measured: its spread is a guess; 2 problems: 29 to 340 % of the mean"
    )


def test_few_measured_problems_say_less_than_many_of_the_same_spread() -> None:
    served = dict.fromkeys(
        MODEL_ROLES, RoleCalls(prompt_tokens=100, answer_tokens=50, call_seconds=2)
    )

    def most(tokens: tuple[float, ...]) -> float:
        seen = Observed(
            Habits(attempts=1.0, critiqued=0.5), {}, has_searched=False, tokens_by_problem=tokens
        )
        ends = estimate(small(), seen, seen.habits, served).tokens
        mean = estimate(
            small(), replace(seen, tokens_by_problem=(1.0, 1.0)), seen.habits, served
        ).tokens.high
        assert ends.low * ends.high == pytest.approx(mean**2)
        return ends.high / mean - 1

    # relative spreads of sqrt(2)/3 and sqrt(20/19)/3; 97.5 % of Student's t with 1 and with 19
    # degrees of freedom
    assert most((2.0, 4.0)) == pytest.approx(12.7062 * 2**0.5 / 3 * (1 / 2 + 1 / 2) ** 0.5)
    assert most((2.0, 4.0) * 10) == pytest.approx(
        2.0930 * (20 / 19) ** 0.5 / 3 * (1 / 2 + 1 / 20) ** 0.5, rel=1e-5
    )


OPENAI = {"kind": "openai", "settings": {"base_url": "http://one/v1", "max_concurrency": 1}}


def hours(spec: RunSpec) -> Range:
    same = dict.fromkeys(MODEL_ROLES, 100.0)
    given = GivenNumbers(call_seconds=same, answer_tokens=same, prompt_tokens=same, issue_share=0.5)
    return guessed(spec, given).hours


def test_roles_of_one_engine_share_its_calls_at_once() -> None:
    shared = hours(small(engine=OPENAI, labeling={"stop_early": False}))
    other = {"settings": {"base_url": "http://two/v1"}}
    apart = hours(
        small(
            engine={**OPENAI, "verifier": other, "meta_verifier": other},
            labeling={"stop_early": False},
        )
    )
    calls = {"generator": 4, "verifier": 16, "meta_verifier": 20 * 0.5 * 3}
    assert shared.low * 3600 == pytest.approx(100 * sum(calls.values()))
    assert apart.low * 3600 == pytest.approx(100 * (calls["verifier"] + calls["meta_verifier"]))


@pytest.mark.parametrize(
    ("common", "own", "faster"),
    [
        ({"max_concurrency": 1}, [{}, {}], 2),
        ({"max_concurrency": 1}, [{}, {"max_concurrency": 3, "weight": 3}], 4),
        ({}, [{"max_concurrency": 1}, {"max_concurrency": 1}], 2),
        ({"requests_per_minute": 0.1}, [{}, {}], 2),
        ({"tokens_per_minute": 10}, [{}, {"tokens_per_minute": 20, "weight": 2}], 3),
        # The other one has no limit: a fifth of the calls waits.
        (
            {},
            [{"requests_per_minute": 0.1}, {"weight": 4}],
            5,
        ),
        (
            {"requests_per_minute": 0.1},
            [{"base_url": "http://0/v1"}, {"base_url": "http://0/v1", "model": "b"}],
            1,
        ),
    ],
)
def test_limits_are_those_of_each_endpoint(
    common: dict[str, float], own: list[dict[str, Any]], faster: float
) -> None:
    tables = [{"base_url": f"http://{place}/v1", **each} for place, each in enumerate(own)]
    several = hours(small(engine={"kind": "openai", "settings": {**common, "endpoints": tables}}))
    limits = common or {name: value for name, value in own[0].items() if name != "weight"}
    one = hours(small(engine={"kind": "openai", "settings": {**limits, "base_url": "http://0/v1"}}))
    assert several.low == pytest.approx(one.low / faster)
