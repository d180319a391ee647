"""The chart as real Helm renders it, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "proofloop"
SET_UPS = sorted(
    path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")
)
"""The supported set-ups, each with a file of values."""

REGISTRY = "registry.example.org/maths"
STORE = "https://s3.example.org"

Object = dict[str, Any]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where libyaml is there."""


def values_of(set_up: str) -> Object:
    read: Object = yaml.safe_load((CHART / "ci" / f"{set_up}-values.yaml").read_text())
    return read


def complete(values: Object) -> Object:
    """The values, with a registry and a store if they have none: without them the chart refuses."""
    image = {"registry": REGISTRY} | values.get("image", {})
    store = {"endpoint": STORE} | values.get("store", {})
    return values | {"image": image, "store": store}


def render(values: Object, name: str = "proofloop") -> dict[str, Object]:
    """The objects of one release, by kind and name. Raises helm_python.HelmError."""
    files = _files(json.dumps(complete(values)), name)
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    found = [one for text in texts for one in yaml.load_all(text, LOADER) if one is not None]
    objects = {f"{one['kind']}/{one['metadata']['name']}": one for one in found}
    assert len(objects) == len(found), "two objects have one name"
    return objects


def notes(values: Object) -> str:
    return _files(json.dumps(complete(values)), "proofloop")["proofloop/templates/NOTES.txt"]


@cache
def _files(values: str, name: str) -> dict[str, str]:
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(json.loads(values), name=name, namespace="maths")


def pods(objects: dict[str, Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template and pod, with the name of what makes it."""
    for name, one in objects.items():
        spec = one.get("spec", {})
        if one["kind"] == "Pod":
            yield name, one
        elif one["kind"] == "LeaderWorkerSet":
            yield f"{name} leader", spec["leaderWorkerTemplate"]["leaderTemplate"]
            yield f"{name} worker", spec["leaderWorkerTemplate"]["workerTemplate"]
        elif "template" in spec:
            yield name, spec["template"]
