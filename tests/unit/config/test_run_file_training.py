"""How far ahead of the trainer a run may pose, and which roles are trained."""

from __future__ import annotations

from typing import Any

import pytest

from proofloop.config.run_file import parse_runspec
from proofloop.config.run_file.training import Training
from proofloop.errors import ConfigError
from tests.builders import runspec


def training(**fields: Any) -> Training:
    return Training(**fields)


def test_a_run_without_training_may_pose_as_much_as_it_likes() -> None:
    assert training().problems_allowed({}) is None
    assert training().roles == ()


@pytest.mark.parametrize(
    ("ahead", "steps", "allowed"),
    [
        (2.0, 0, 32),
        (2.0, 1, 48),
        (1.0, 0, 16),
        (1.0, 3, 64),
        (1.5, 0, 24),
        (2.0, 4, None),
        (2.0, 5, None),
    ],
)
def test_a_run_may_be_so_many_steps_ahead_of_the_only_role(
    ahead: float, steps: int, allowed: int | None
) -> None:
    wanted = training(problems=16, ahead=ahead, generator={"steps": 4})
    assert wanted.problems_allowed({"generator": steps}) == allowed
    assert wanted.roles == ("generator",)


def test_a_role_that_has_taken_no_step_yet_need_not_be_named() -> None:
    wanted = training(problems=4, ahead=1.0, verifier={"steps": 2})
    assert wanted.problems_allowed({}) == wanted.problems_allowed({"verifier": 0}) == 4


@pytest.mark.parametrize(
    ("generator", "verifier", "allowed"),
    [(0, 0, 4), (3, 0, 4), (0, 3, 4), (1, 1, 8), (2, 1, 8), (4, 1, 8), (4, 4, None), (4, 3, 16)],
)
def test_the_slower_role_holds_the_run_back_until_it_is_done(
    generator: int, verifier: int, allowed: int | None
) -> None:
    wanted = training(problems=4, ahead=1.0, generator={"steps": 4}, verifier={"steps": 4})
    assert wanted.problems_allowed({"generator": generator, "verifier": verifier}) == allowed


@pytest.mark.parametrize(
    ("generator", "verifier", "allowed"),
    [(0, 0, 4), (0, 1, 8), (0, 2, 12), (1, 2, 16), (2, 2, None)],
)
def test_a_role_that_begins_later_is_not_waited_for_before(
    generator: int, verifier: int, allowed: int | None
) -> None:
    """The verifier takes two steps, then the generator two."""
    wanted = training(
        problems=4, ahead=1.0, generator={"steps": 2, "begin": 2}, verifier={"steps": 2}
    )
    assert wanted.problems_allowed({"generator": generator, "verifier": verifier}) == allowed


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"ahead": 0.5}, "[training] ahead = 0.5"),
        ({"problems": 0}, "[training] problems = 0"),
        ({"generator": {"steps": -1}}, "[training.generator] steps = -1"),
        ({"verifier": {"groups": 0}}, "[training.verifier] groups = 0"),
        ({"generator": {"begin": -1}}, "[training.generator] begin = -1"),
    ],
)
def test_a_number_out_of_its_range_is_named_with_its_place(
    fields: dict[str, Any], place: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        runspec(training=fields)
    assert caught.value.problem.startswith(
        f"{place} in a test: Input should be greater than or equal to "
    )


NAMED = {role: "served" for role in ("generator", "verifier", "meta_verifier")}
SERVED = {"model": "served"}


def run_on(kind: str, settings: dict[str, Any], **training: Any) -> dict[str, Any]:
    engine = {"kind": kind, "settings": settings}
    return {
        "name": "r",
        "problems": {"domain": "nano"},
        "engine": engine,
        "models": NAMED,
        "training": training,
    }


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (
            "openai",
            {},
            r'^\[engine\] kind = "openai" and \[training.generator\] in a test .*cannot load'
            r" trained versions",
        ),
        (
            "openai",
            SERVED,
            r'^\[engine.settings\] model = "served" and .*with a fixed name, the start'
            r" model would answer",
        ),
        (
            "triton",
            SERVED,
            r'^\[engine.settings\] model = "served" and .*\nhint: .*kind = "triton" without'
            r" `model`$",
        ),
    ],
)
def test_an_engine_that_cannot_load_versions_is_refused_for_training(
    kind: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_runspec(run_on(kind, settings, generator={"steps": 1}), "a test")
    parse_runspec(run_on(kind, settings), "a test")  # without training it may


@pytest.mark.parametrize(
    ("kind", "settings"), [("triton", {"models": {"a": "b"}}), ("local", {}), ("mine", SERVED)]
)
def test_an_engine_that_loads_versions_or_is_not_ours_may_train(
    kind: str, settings: dict[str, Any]
) -> None:
    parse_runspec(run_on(kind, settings, generator={"steps": 1}), "a test")


def test_a_server_that_loads_adapters_trains_adapters_only() -> None:
    fields = run_on("openai", SERVED | {"load_adapters": True}, generator={"steps": 1})
    parse_runspec(fields | {"lora": {}}, "a test")
    said = r"load_adapters = true and .* only if they are adapters\nhint: set \[lora\]"
    with pytest.raises(ConfigError, match=said):
        parse_runspec(fields, "a test")
    fields = run_on("openai", SERVED, generator={"steps": 1})
    said = r"\nhint: .*or train adapters: \[lora\] and \[engine.settings\] load_adapters = true"
    with pytest.raises(ConfigError, match=said):
        parse_runspec(fields | {"lora": {}}, "a test")
