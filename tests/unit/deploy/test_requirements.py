"""The locks in requirements/ hold what the packages ask for, exact, and nothing of one machine."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LIGHT = ["services/generator", "services/verifier", "services/meta_verifier", "services/labeler"]
PACKAGES_OF = {
    "light": ["shared", *LIGHT],
    "serving": ["shared", "serving"],
    "trainer": ["shared", "serving", "services/trainer"],
    "test": ["shared", "serving", *LIGHT, "services/trainer"],
}

EXTRAS_OF = {
    "light": ["cluster", "flower", "sentry", "tracing"],
    "serving": ["cluster"],
    "trainer": ["cluster", "sentry", "tracing"],
    "test": [
        "cluster",
        "documents",
        "flower",
        "judge",
        "parquet",
        "report",
        "sentry",
        "socks",
        "tensorboard",
        "testing",
        "tracing",
    ],
}
"""The extras of the core that each lock holds."""


@pytest.mark.parametrize("lock", PACKAGES_OF)
def test_a_lock_has_every_requirement_in_a_version_that_fits(lock: str) -> None:
    pins = pinned(lock)
    for requirement in (
        wanted for package in PACKAGES_OF[lock] for wanted in requirements_of(package)
    ):
        if requirement.name not in ("proofloop-core", "proofloop-serving"):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(
                requirement
            )


@pytest.mark.parametrize(
    ("lock", "extra"), [(lock, extra) for lock in EXTRAS_OF for extra in EXTRAS_OF[lock]]
)
def test_a_lock_has_the_extras_of_the_core_that_its_image_uses(lock: str, extra: str) -> None:
    pins = pinned(lock)
    for requirement in extras_of("shared")[extra]:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), str(requirement)


def test_the_tests_have_every_extra_of_the_core() -> None:
    assert sorted(extras_of("shared")) == EXTRAS_OF["test"]


@pytest.mark.parametrize("lock", ["build", *PACKAGES_OF])
def test_a_lock_names_no_address_no_folder_and_nothing_of_cuda(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert not [
        word
        for word in ("://", "--index", "--find-links", " @ ", "nvidia", "\ntriton==", "cuda")
        if word in text
    ]


@pytest.mark.parametrize("lock", ["build", "light", "serving", "trainer"])
def test_all_locks_agree_with_the_one_that_is_tested(lock: str) -> None:
    assert pinned(lock).items() <= pinned("test").items()


def test_the_light_services_need_no_torch() -> None:
    assert "torch" in pinned("trainer")
    assert not {"torch", "transformers", "trl"} & set(pinned("light"))


def test_serving_needs_no_trainer() -> None:
    assert not {"trl", "datasets"} & set(pinned("serving"))


def requirements_of(package: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def extras_of(package: str) -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return {extra: [Requirement(line) for line in lines] for extra, lines in extras.items()}


def pinned(lock: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
