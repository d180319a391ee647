"""The workflows under .github/, as actionlint and zizmor see them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


@pytest.mark.parametrize(
    "command", [["actionlint"], ["zizmor", "--offline", "--persona=pedantic", "--quiet", ".github"]]
)
def test_a_linter_finds_nothing(command: list[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    assert program.is_file(), f"{command[0]} is not installed: make setup"
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_hash_with_its_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.*)", workflow.read_text())
    assert uses
    assert [use for use in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", use)] == []


def test_the_tests_run_on_every_python_that_the_distribution_names() -> None:
    tests = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if ":: 3." in one]
    assert tests["jobs"]["python"]["strategy"]["matrix"]["python"] == named


def test_a_server_that_could_not_be_installed_fails_the_tests_that_need_it() -> None:
    tests = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert tests["jobs"]["servers"]["steps"][-1]["env"] == {"PROOFLOOP_TEST_SKIPS": "fail"}


def test_an_image_of_every_role_and_of_triton_is_published_with_a_bill_of_materials() -> None:
    job = RELEASE["jobs"]["images"]
    roles = {one["role"]: one["target"] for one in job["strategy"]["matrix"]["include"]}
    services = ("generator", "verifier", "meta_verifier", "labeler", "trainer")
    assert roles == dict.fromkeys(services, "service") | {"serving": "serving"}
    build = job["steps"][-1]["with"]
    assert (build["sbom"], build["provenance"], build["push"]) == (True, "mode=max", True)


def test_nothing_is_published_before_the_check() -> None:
    needs = {name: job.get("needs", []) for name, job in RELEASE["jobs"].items()}
    assert all("check" in needs[name] for name in needs if name != "check")
    assert "packages" not in RELEASE["jobs"]["check"]["permissions"]
