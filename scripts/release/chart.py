"""The chart and the compose file: with a registry, linted, and compared with the images that the
release publishes and with the last released chart.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml
from scripts.release.findings import DONE, FAILED, ROOT, Finding, compared

CHART = ROOT / "helm" / "proofloop"
COMPOSE = ROOT / "docker-compose.yml"
REGISTRY = "ghcr.io/owner"
"""Stands for the real one in a rehearsal."""

IMMUTABLE = {"Deployment": "selector", "Job": "template"}
"""The field of a kind that Kubernetes refuses to change in an upgrade."""

Objects = dict[str, dict[str, Any]]


def check(version: str, folder: Path) -> Iterator[Finding]:
    stamp(REGISTRY, folder)
    published = {f"{REGISTRY}/{name}:{version}" for name in published_images()}
    for values in sorted(CHART.glob("ci/*-values.yaml")):
        yield lint(folder / "proofloop", yaml.safe_load(values.read_text()), values.stem)
    values = {"review": {"enabled": True}, "store": {"endpoint": "https://s3.example.org"}}
    asked = images(render(folder / "proofloop", values))
    yield compared("images of the chart that are not published", sorted(asked - published), [])
    composed = compose_images(folder / "docker-compose.yml")
    yield compared(
        "images of the compose file that are not published", sorted(composed - published), []
    )
    yield upgrade(folder)


def stamp(registry: str, folder: Path) -> None:
    """Copy the chart and the compose file to the folder, with the registry as their default."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(CHART, folder / "proofloop")
    replace(folder / "proofloop" / "values.yaml", '  registry: ""', f"  registry: {registry}")
    shutil.copy(COMPOSE, folder)
    copy = folder / "docker-compose.yml"
    replace(copy, "${PROOFLOOP_REGISTRY:-}", f"${{PROOFLOOP_REGISTRY:-{registry}/}}")
    copy.write_text(re.sub(r"\n    build: .*", "", copy.read_text()))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    if old not in text:
        raise SystemExit(f"error: {file} does not contain {old!r}")
    file.write_text(text.replace(old, new))


def published_images() -> set[str]:
    """The names of the images that release.yml pushes. It leaves out the GPU image."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    matrix = workflow["jobs"]["images"]["strategy"]["matrix"]["include"]
    return {one["image"] for one in matrix}


def lint(chart: Path, values: dict[str, Any], name: str) -> Finding:
    report = helm_python.lint(chart, values, strict=True, namespace="maths")
    messages = [line["message"] for line in report["messages"] if line["severity"] > 1]
    return Finding(
        f"chart with {name}", FAILED if messages else DONE, "; ".join(messages) or "linted"
    )


def render(chart: Path, values: dict[str, Any]) -> Objects:
    with helm_python.Chart.load(chart) as loaded:
        files = loaded.render(values, name="proofloop", namespace="maths")
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    found = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def images(objects: Objects) -> set[str]:
    return set(re.findall(r'"image": "([^"]+)"', json.dumps(objects)))


def compose_images(file: Path) -> set[str]:
    """Our images that an `up` without profiles starts."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text())
    services = yaml.safe_load(text)["services"].values()
    return {
        one["image"]
        for one in services
        if "proofloop-" in one["image"] and "gpu" not in one.get("profiles", ())
    }


def upgrade(folder: Path) -> Finding:
    """Whether `helm upgrade` from the last released chart works: no immutable field changes."""
    tag = last_release()
    if not tag:
        return Finding("chart upgrade", DONE, "no earlier release")
    with tarfile.open(fileobj=io.BytesIO(git("archive", tag, "helm/proofloop"))) as archive:
        archive.extractall(folder / "old", filter="data")
    changed = immutable_changes(folder / "old" / "helm" / "proofloop", folder / "proofloop")
    return compared(f"immutable fields changed since {tag}", changed, [])


def last_release() -> str:
    """The tag of the newest release before this commit; the workflow runs on the new one's tag."""
    before = ["--list", "v*", "--merged", "HEAD", "--no-contains", "HEAD"]
    return git("tag", *before, "--sort=-v:refname").decode().partition("\n")[0]


def immutable_changes(old: Path, new: Path) -> list[str]:
    """The immutable fields that differ between two charts, in all set-ups of the old one."""
    changed: set[str] = set()
    for values in sorted(old.glob("ci/*-values.yaml")):
        before, after = (render(chart, yaml.safe_load(values.read_text())) for chart in (old, new))
        for name in before.keys() & after.keys():
            field = IMMUTABLE.get(after[name]["kind"])
            if field is None or is_hook(after[name]):
                continue
            if before[name]["spec"][field] != after[name]["spec"][field]:
                changed.add(f"{name} {field}")
    return sorted(changed)


def is_hook(one: dict[str, Any]) -> bool:
    """Whether Helm deletes and creates the object again."""
    return "helm.sh/hook" in one["metadata"].get("annotations", {})


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout
