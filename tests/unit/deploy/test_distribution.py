"""proofloop-math, the one distribution that people install, has all that its parts have."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

import proofloop

ROOT = Path(__file__).parents[3]
LIGHT = ["services/generator", "services/labeler", "services/meta_verifier", "services/verifier"]
PARTS = ["serving", *LIGHT, "services/trainer", "shared"]
OWN = {"proofloop-core", "proofloop-serving"}

WHOLE: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PART = {part: tomllib.loads((ROOT / part / "pyproject.toml").read_text()) for part in PARTS}
EXTRAS: dict[str, list[str]] = PART["shared"]["project"]["optional-dependencies"]


def test_it_needs_what_the_light_roles_their_page_and_the_report_need() -> None:
    assert needed(*EXTRAS["report"], *dependencies("shared", *LIGHT)) == dependencies(".")


def test_it_has_every_other_extra_of_the_core() -> None:
    others = {name: lines for name, lines in EXTRAS.items() if name != "report"}
    own = WHOLE["project"]["optional-dependencies"]
    assert {name: lines for name, lines in own.items() if name in others} == others
    assert own.keys() - others.keys() == {"serving", "trainer"}


def test_trainer_and_serving_are_extras_of_their_libraries() -> None:
    own = WHOLE["project"]["optional-dependencies"]
    base = {name_of(line) for line in dependencies(".")}
    for extra, folders in {
        "serving": ["serving"],
        "trainer": ["serving", "services/trainer"],
    }.items():
        asked = {name_of(line) for line in dependencies(*folders)} - base
        lines = [*own[extra], *(own["serving"] if extra == "trainer" else [])]
        assert {name_of(line) for line in lines} - {"proofloop-math"} == asked


def test_it_has_every_entry_point_and_every_package_of_its_parts() -> None:
    points: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for part in PARTS:
        for group, named in PART[part]["project"].get("entry-points", {}).items():
            points[group] |= named
    assert WHOLE["project"]["entry-points"] == points
    assert WHOLE["project"]["scripts"] == PART["shared"]["project"]["scripts"]
    packages = {f"{part}/{name}" for part in PARTS for name in packages_of(PART[part])}
    assert set(packages_of(WHOLE)) == packages


def test_one_version_is_written_once_for_all_packages() -> None:
    for folder, project in {".": WHOLE, **PART}.items():
        assert project["project"]["dynamic"] == ["version"]
        source = ROOT / folder / project["tool"]["hatch"]["version"]["path"]
        assert source.resolve() == ROOT / "shared/proofloop/version.py"


def test_chart_citation_and_changelog_have_the_version() -> None:
    version = proofloop.__version__
    chart = yaml.safe_load((ROOT / "helm/proofloop/Chart.yaml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (chart["version"], chart["appVersion"], citation["version"]) == (version,) * 3
    assert re.search(rf"^## .*\b{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def dependencies(*folders: str) -> list[str]:
    projects = [WHOLE if folder == "." else PART[folder] for folder in folders]
    return needed(*(line for one in projects for line in one["project"]["dependencies"]))


def packages_of(project: dict[str, Any]) -> list[str]:
    packages: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return packages


def needed(*lines: str) -> list[str]:
    return sorted({line for line in lines if name_of(line) not in OWN})


def name_of(line: str) -> str:
    return re.split(r"[^\w-]", line)[0]
