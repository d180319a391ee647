"""The rehearsal of a release: what it compares, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from scripts.release import chart, licenses, source
from scripts.release.findings import DONE, FAILED, OPEN

import proofloop

VERSION = proofloop.__version__


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    chart.stamp("ghcr.io/owner", tmp_path)
    return tmp_path


def test_the_tree_has_one_version() -> None:
    assert {one.state for one in source.check(VERSION) if one.what != "changelog"} == {DONE}
    assert {one.state for one in source.check("9.9.9")} == {FAILED}


@pytest.mark.parametrize(
    ("heading", "state"),
    [
        ("## [Unreleased] 0.1.0", OPEN),
        ("## [0.1.0] - 2026-12-01", DONE),
        ("## [0.2.0] - 2026-12-01", FAILED),
    ],
)
def test_the_changelog_needs_a_dated_section(
    heading: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "lines", lambda: ["# Changelog", heading, "", "A line."])
    assert source.changelog("0.1.0").state == state


def test_the_notes_are_the_section_of_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ["# Changelog", "## [0.2.0] - x", "new", "## [0.1.0] - y", "", "### Run", "- old", ""]
    monkeypatch.setattr(source, "lines", lambda: text)
    assert source.notes("0.1.0") == "### Run\n- old"
    with pytest.raises(SystemExit, match=r"no section for 0\.3\.0"):
        source.notes("0.3.0")


def test_a_stamped_chart_and_compose_file_name_only_published_images(stamped: Path) -> None:
    published = {f"ghcr.io/owner/{name}:{VERSION}" for name in chart.published_images()}
    values = {
        "review": {"enabled": True},
        "roles": {"trainer": {"enabled": True}},
        "store": {"endpoint": "https://s3.example.org"},
    }
    of_chart = chart.images(chart.render(stamped / "proofloop", values))
    of_compose = chart.compose_images(stamped / "docker-compose.yml")
    assert len(of_chart) == 5 and of_chart < published
    assert of_compose == published


def test_a_stamped_compose_file_builds_nothing(stamped: Path) -> None:
    services = yaml.safe_load((stamped / "docker-compose.yml").read_text())["services"]
    assert not [name for name, service in services.items() if "build" in service]
    assert services["review"]["image"] == services["labeler"]["image"]


def test_an_upgrade_that_kubernetes_would_refuse_is_found(stamped: Path, tmp_path: Path) -> None:
    old = shutil.copytree(
        stamped / "proofloop", tmp_path / "old", ignore=lambda _, names: slow_set_ups(names)
    )
    assert chart.immutable_changes(old, stamped / "proofloop") == []
    helpers = stamped / "proofloop" / "templates" / "_helpers.tpl"
    chart.replace(helpers, "app.kubernetes.io/component", "component")
    changed = chart.immutable_changes(old, stamped / "proofloop")
    assert "Deployment/proofloop-verifier selector" in changed


def test_a_license_that_extends_to_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"a": "MIT", "b": "MPL-2.0 AND MIT", "c": "GNU AGPL v3", "d": "UNKNOWN"}
    monkeypatch.setattr(licenses, "pinned", lambda: set(named))
    monkeypatch.setattr(licenses, "licenses", lambda: named)
    assert list(licenses.check()) == [("licenses", FAILED, "c: GNU AGPL v3; d: UNKNOWN")]


def test_the_licenses_of_all_pinned_packages_are_accepted() -> None:
    assert [one.state for one in licenses.check()] == [DONE]


def test_the_last_release_is_not_the_one_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chart, "ROOT", tmp_path)
    chart.git("init", "--quiet")
    chart.git("config", "user.name", "Ada")
    chart.git("config", "user.email", "ada@example.org")
    found = []
    for tag in ("v0.1.0", "v0.9.0", "v0.10.0"):
        chart.git("commit", "--quiet", "--allow-empty", "--message", tag)
        chart.git("tag", "--no-sign", tag)
        found.append(chart.last_release())
    assert found == ["", "v0.1.0", "v0.9.0"]


def slow_set_ups(names: list[str]) -> list[str]:
    """All files of values but the smallest: each is rendered by both charts."""
    return [name for name in names if name.endswith("-values.yaml") and "minimal" not in name]
