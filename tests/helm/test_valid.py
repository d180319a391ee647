"""What the chart renders is what Kubernetes and the operators accept: strictly, in every supported
set-up.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from proofloop.cli.app import app
from tests.helm.chart import CHART, SET_UPS, Object, render, values_of

KUBERNETES = [f"1.{minor}" for minor in range(34, 38)]
"""The last four minor versions."""

# Megabytes an object.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)

WARNING = 2
"""Helm's severity of what `helm lint --strict` fails on."""


@pytest.mark.parametrize("set_up", SET_UPS)
def test_a_set_up_passes_strict_lint(set_up: str) -> None:
    report = helm_python.lint(CHART, values_of(set_up), strict=True, namespace="maths")
    assert [line for line in report["messages"] if line["severity"] >= WARNING] == []


def test_helm_test_fails_if_the_secret_lacks_the_broker(tmp_path: Path) -> None:
    (container,) = render({})["Pod/proofloop-doctor"]["spec"]["containers"]
    found = CliRunner().invoke(
        app, container["command"][1:], env={"PROOFLOOP_SECRETS": str(tmp_path)}
    )
    assert found.exit_code == 1
    assert "PROOFLOOP_BROKER is not set" in found.stdout


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("set_up", SET_UPS)
def test_a_set_up_is_valid_for_kubernetes(set_up: str, version: str) -> None:
    checked = [one for one in render(values_of(set_up)).values() if not is_custom(one)]
    assert checked
    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)


def test_the_versions_are_the_last_four_that_can_be_checked() -> None:
    known = {
        kubernetes_validate.utils.major_minor(version)
        for version in kubernetes_validate.utils.all_versions()
    }
    assert sorted(known, key=lambda version: int(version.partition(".")[2]))[-4:] == KUBERNETES


def test_a_misspelt_field_of_kubernetes_would_be_found() -> None:
    deployment = render(values_of("minimal"))["Deployment/proofloop-verifier"]
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("set_up", SET_UPS)
def test_custom_resources_have_only_fields_their_operators_know(set_up: str) -> None:
    for one in filter(is_custom, render(values_of(set_up)).values()):
        group, _, version = one["apiVersion"].partition("/")
        schema = custom_schemas()[group, one["kind"], version]
        assert [error.message for error in Draft202012Validator(schema).iter_errors(one)] == [], (
            one["metadata"]["name"]
        )


def test_a_misspelt_field_of_a_custom_resource_would_be_found() -> None:
    scaled = render(values_of("production"))["ScaledObject/proofloop-verifier"]
    scaled["spec"]["maxReplicas"] = 3
    validator = Draft202012Validator(custom_schemas()["keda.sh", "ScaledObject", "v1alpha1"])
    assert ["maxReplicas" in error.message for error in validator.iter_errors(scaled)] == [True]


def test_every_kind_of_custom_resource_is_rendered_in_some_set_up() -> None:
    rendered = {
        one["kind"]
        for set_up in SET_UPS
        for one in render(values_of(set_up)).values()
        if is_custom(one)
    }
    assert rendered == {
        "LeaderWorkerSet",
        "PrometheusRule",
        "RabbitmqCluster",
        "ScaledObject",
        "ServiceMonitor",
        "TriggerAuthentication",
    }


def is_custom(one: Object) -> bool:
    group = one["apiVersion"].partition("/")[0]
    return ("." in group and not group.endswith(".k8s.io")) or group == "leaderworkerset.x-k8s.io"


@cache
def custom_schemas() -> dict[tuple[str, str, str], Object]:
    """Closed schemas by group, kind and version from the folder PROOFLOOP_CRD_SCHEMAS; skips loudly
    without it.

    A file holds one kind: {"group": ..., "kind": ..., "versions": {version: OpenAPI v3 schema}}.
    """
    folder = os.environ.get("PROOFLOOP_CRD_SCHEMAS")
    if not folder:
        pytest.skip(
            "custom resources are NOT checked: set PROOFLOOP_CRD_SCHEMAS to a folder with their"
            " schemas"
        )
    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    return {
        (crd["group"], crd["kind"], version): closed(schema)
        for crd in found
        for version, schema in crd["versions"].items()
    }


def closed(schema: Any) -> Any:
    """The schema with every object closed that names its properties, unless it says that it keeps
    unknown ones.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    inner = {name: closed(part) for name, part in schema.items() if name != "properties"}
    if properties is None:
        return inner
    inner["properties"] = {name: closed(part) for name, part in properties.items()}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return inner
    return inner | {"additionalProperties": False}
