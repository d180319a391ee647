"""One role's version changes that role's model servers and nothing else; the old ones can stay
beside the new.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.engine.triton.contract import triton_name
from proofloop.errors import ConfigError
from proofloop.runs.model_registry import served_log
from proofloop.schema import keys
from proofloop.store import LocalStore
from tests.builders import publish_versions, runspec
from tests.helm.chart import REGISTRY, Object, notes, render, values_of

OLD, NEW = "runs/olympiad/models/verifier/000012", "runs/olympiad/models/verifier/000013"
OLD_NAME, NEW_NAME = "proofloop-verifier-000012-4e65b1", "proofloop-verifier-000013-3c5d59"


def test_a_new_version_replaces_the_servers_of_its_role_and_promotes_it() -> None:
    before, after = render(production(OLD)), render(production(NEW))
    assert set(before) - set(after) == servers_of(OLD_NAME)
    assert set(after) - set(before) == servers_of(NEW_NAME)
    assert differing(before, after) == {"Job/proofloop-verifier-promote"}


def test_with_keep_the_old_servers_stay_as_they_are() -> None:
    before, after = render(production(OLD)), render(production(NEW, keep=[OLD]))
    assert set(before) - set(after) == set()
    assert set(after) - set(before) == servers_of(NEW_NAME)
    assert differing(before, after) == {"Job/proofloop-verifier-promote"}


def test_old_and_new_servers_answer_under_the_same_address() -> None:
    objects = render(production(NEW, keep=[OLD]))
    selector = objects["Service/proofloop-verifier-model"]["spec"]["selector"]
    for name in (OLD_NAME, NEW_NAME):
        labels = objects[f"Deployment/{name}"]["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items()


def test_versions_of_a_trainer_are_loaded_with_the_settings_of_each_server() -> None:
    values = production(OLD)
    values["roles"]["trainer"] = {"enabled": False}
    assert "load_models = false" in notes(values)
    values["roles"]["trainer"] = {"enabled": True}
    lines = [line.partition(" #")[0].strip() for line in notes(values).splitlines()]
    assert {"load_models = true", 'server_settings = "model.yaml"'} <= {*lines}
    pod = render(values)[f"Deployment/{OLD_NAME}"]["spec"]["template"]["spec"]
    (settings,) = [volume["configMap"] for volume in pod["volumes"] if volume["name"] == "settings"]
    assert [item["path"] for item in settings["items"]] == ["model.yaml"]


def test_a_role_that_changes_its_concurrency_restarts_no_other_role() -> None:
    values = values_of("production")
    values["roles"]["verifier"]["concurrency"] = 256
    changed = differing(render(values_of("production")), render(values))
    assert changed == {"Deployment/proofloop-verifier", "ScaledObject/proofloop-verifier"}


def test_a_roles_own_setting_changes_its_own_checksum_only() -> None:
    values = values_of("production")
    values["roles"]["verifier"]["graceSeconds"] = 90
    changed = differing(render(values_of("production")), render(values))
    assert changed == {"ConfigMap/proofloop-verifier", "Deployment/proofloop-verifier"}


def test_a_role_may_run_another_image_than_the_others() -> None:
    deployments = render({"roles": {"verifier": {"image": {"tag": "0.0.9"}}}})
    images = {
        name: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for name, one in deployments.items()
        if one["kind"] == "Deployment"
    }
    assert images == {
        "Deployment/proofloop-generator": f"{REGISTRY}/proofloop-generator:0.1.0",
        "Deployment/proofloop-verifier": f"{REGISTRY}/proofloop-verifier:0.0.9",
        "Deployment/proofloop-meta-verifier": f"{REGISTRY}/proofloop-meta-verifier:0.1.0",
        "Deployment/proofloop-labeler": f"{REGISTRY}/proofloop-labeler:0.1.0",
    }


def test_a_chart_of_another_version_restarts_nothing_by_itself() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in render(values_of("production")).values()
        if one["kind"] == "Deployment"
    ]
    assert labels and not [found for found in labels if "helm.sh/chart" in found]


def test_two_versions_with_like_names_get_servers_of_their_own() -> None:
    values: Object = {
        "roles": {"verifier": {"model": {"version": "team/a/model", "keep": ["team/b/model"]}}}
    }
    assert (
        len(
            [
                name
                for name in render(values)
                if name.startswith("Deployment/proofloop-verifier-model-")
            ]
        )
        == 2
    )


def test_a_server_loads_its_version_under_the_name_that_clients_ask_for() -> None:
    objects = render(production(NEW))
    pod = objects[f"Deployment/{NEW_NAME}"]["spec"]["template"]["spec"]
    name = triton_name(NEW)
    assert pod["containers"][0]["args"] == [f"--load-model={name}"]
    models = next(volume for volume in pod["volumes"] if volume["name"] == "models")
    paths = [item["path"] for item in models["configMap"]["items"]]
    assert paths == [f"{name}/config.pbtxt", f"{name}/1/model.py"]
    assert f'string_value: "{NEW}"' in objects[f"ConfigMap/{NEW_NAME}"]["data"]["config.pbtxt"]


def test_a_model_is_loaded_once_however_many_gpus_the_pod_has() -> None:
    config = render(production(NEW))[f"ConfigMap/{NEW_NAME}"]["data"]["config.pbtxt"]
    # By default Triton makes an instance for each GPU.
    assert "instance_group [ { kind: KIND_CPU } ]" in config


def test_the_job_has_time_to_read_the_largest_model() -> None:
    assert (
        render(production(NEW))["Job/proofloop-verifier-promote"]["spec"]["activeDeadlineSeconds"]
        == 10800
    )


def test_the_notes_say_that_the_servers_speak_tls() -> None:
    assert 'ca_file = "/etc/proofloop/ca/ca.crt"\n' in notes(values_of("tls"))
    assert "ca_file" not in notes(values_of("nano"))


def test_the_notes_name_the_addresses_for_the_run_file() -> None:
    assert (
        'endpoints = ["proofloop-generator-model.maths.svc:8001",'
        ' "proofloop-meta-verifier-model.maths.svc:8001", '
        '"proofloop-verifier-model.maths.svc:8001"]'
    ) in notes(values_of("production"))


@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize("first", ["models rollback", "helm rollback"])
def test_the_charts_job_and_a_rollback_by_hand_agree_on_what_serves(
    tmp_path: Path, first: str
) -> None:
    store = LocalStore(tmp_path / "store")
    publish_versions(store, tmp_path, OLD, NEW)
    spec = runspec(name="olympiad", models={"verifier": OLD})
    store.put_if_absent(keys.run_spec("olympiad"), spec.model_dump_json().encode())
    assert call(store, *job(production(NEW, keep=[OLD]))) == f"verifier of olympiad serves {NEW}\n"
    if first == "models rollback":
        assert (
            call(store, "models", "rollback", "verifier", "--run", "olympiad")
            == f"verifier of olympiad serves {OLD}\n"
        )
    assert call(store, *job(production(OLD))) == f"verifier of olympiad serves {OLD}\n"
    assert served_log(store, "olympiad", "verifier")[-1].version == OLD


@pytest.mark.usefixtures("quiet_log")
def test_the_charts_job_skips_a_run_not_posed_yet_and_fails_for_a_wrong_version(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path / "store")
    said = call(store, *job(production(NEW)))
    assert said.startswith(f"nothing to promote: no run named 'olympiad' in {store} yet;")
    assert served_log(store, "olympiad", "verifier") == []
    spec = runspec(name="olympiad", models={"verifier": OLD})
    store.put_if_absent(keys.run_spec("olympiad"), spec.model_dump_json().encode())
    with pytest.raises(ConfigError, match=f"no complete version '{NEW}' in run olympiad"):
        call(store, *job(production(NEW)))


def job(values: Object) -> list[str]:
    """The words after `proofloop` of the job that follows an upgrade and a rollback."""
    pod = render(values)["Job/proofloop-verifier-promote"]["spec"]["template"]["spec"]
    program, *words = pod["containers"][0]["command"]
    assert program == "proofloop"
    return words


def call(store: LocalStore, *words: str) -> str:
    result = CliRunner().invoke(
        app, [*words, "--store", str(store.root)], env=dict(os.environ), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def production(version: str, keep: list[str] | None = None) -> Object:
    values = deepcopy(values_of("production"))
    values["roles"]["verifier"]["model"] |= {"version": version, "keep": keep or []}
    return values


def servers_of(name: str) -> set[str]:
    return {f"{kind}/{name}" for kind in ("ConfigMap", "Deployment", "PodDisruptionBudget")}


def differing(before: dict[str, Object], after: dict[str, Object]) -> set[str]:
    return {name for name in set(before) & set(after) if before[name] != after[name]}
