"""The job that runs a curriculum."""

from __future__ import annotations

import helm_python
import pytest
import yaml

from proofloop.config.curriculum_file import load_curriculum
from tests.helm.chart import ROOT, Object, notes, render, values_of


def jobs(values: Object) -> list[Object]:
    return [one for name, one in render(values).items() if name.startswith("Job/proofloop-curr")]


def test_the_job_runs_the_file_of_the_config_map() -> None:
    [job] = jobs(values_of("curriculum"))
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == [
        "proofloop",
        "iterate",
        "/etc/proofloop/curriculum/curriculum.toml",
    ]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["curriculum"] == "/etc/proofloop/curriculum"
    assert {"name": "curriculum", "configMap": {"name": "curriculum"}} in pod["volumes"]
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)


def test_without_a_config_map_there_is_no_job() -> None:
    assert jobs({}) == []


def test_an_upgrade_that_changes_the_pod_replaces_the_job() -> None:
    values = values_of("curriculum")
    [job], [upgraded] = jobs(values), jobs({**values, "image": {"tag": "0.2.0"}})
    assert job["metadata"]["name"] != upgraded["metadata"]["name"]
    [same] = jobs({**values, "worker": {**values["worker"], "replicas": 3}})
    assert same["metadata"]["name"] == job["metadata"]["name"]


def test_a_curriculum_needs_a_trainer() -> None:
    values = {**values_of("curriculum"), "roles": {"trainer": {"enabled": False}}}
    with pytest.raises(helm_python.HelmError, match="no trainer runs: set roles"):
        render(values)


def test_the_example_reaches_the_server_of_the_values() -> None:
    spec = load_curriculum(ROOT / "examples" / "kubernetes" / "curriculum.toml")
    printed = notes(values_of("curriculum"))
    [endpoint] = spec.engine.settings["endpoints"]
    assert endpoint in printed
    assert f'server_settings = "{spec.engine.settings["server_settings"]}"' in printed


def test_the_values_name_the_example() -> None:
    text = (ROOT / "helm/proofloop/ci/curriculum-values.yaml").read_text()
    name = yaml.safe_load(text)["curriculum"]["configMap"]
    command = f"kubectl create configmap {name} --from-file=examples/kubernetes/curriculum.toml"
    assert command in text
    assert command in (ROOT / "docs/how-to/kubernetes.md").read_text()
