"""The versions in the tree, and the changelog."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from scripts.release.findings import DONE, FAILED, OPEN, ROOT, Finding, compared

import proofloop


def check(version: str) -> Iterator[Finding]:
    for where, found in versions().items():
        yield compared(f"version in {where}", found, version)
    yield changelog(version)


def versions() -> dict[str, str]:
    """Each place that states the version."""
    chart = yaml.safe_load((ROOT / "helm/proofloop/Chart.yaml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    compose = re.findall(r"PROOFLOOP_VERSION:-([^}]*)", (ROOT / "docker-compose.yml").read_text())
    return {
        "shared/proofloop/version.py": proofloop.__version__,
        "Chart.yaml, version": chart["version"],
        "Chart.yaml, appVersion": chart["appVersion"],
        "CITATION.cff": citation["version"],
        "docker-compose.yml": ", ".join(sorted(set(compose))),
    }


def changelog(version: str) -> Finding:
    heading = next((line for line in lines() if line.startswith("## ") and version in line), "")
    if not heading:
        return Finding("changelog", FAILED, f"no section names {version}")
    if not re.search(r"\d{4}-\d\d-\d\d$", heading):
        return Finding("changelog", OPEN, f"write the heading as ## [{version}] - YYYY-MM-DD")
    return Finding("changelog", DONE, heading)


def notes(version: str) -> str:
    """The section of a version, without its heading."""
    section: list[str] = []
    inside = False
    for line in lines():
        if line.startswith("## "):
            inside = version in line
        elif inside:
            section.append(line)
    if not section:
        raise SystemExit(f"error: CHANGELOG.md has no section for {version}")
    return "\n".join(section).strip()


def lines() -> list[str]:
    return (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
