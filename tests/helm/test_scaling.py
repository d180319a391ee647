"""The autoscaler's numbers follow from the role's; what is scaled down is given the time to
finish.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from proofloop.bus.topology import Topology
from proofloop.runs.planning.capacity import Habits, Load, RoleCalls, plan, values_snippet
from proofloop.schema.records import MODEL_ROLES, PIPELINE_ROLES, Role
from tests.builders import runspec
from tests.helm.chart import CHART, SET_UPS, Object, pods, render, values_of


@pytest.mark.parametrize(
    ("rounds", "concurrency", "expected"),
    [(1, 64, "64"), (2, 64, "128"), (0.5, 5, "3"), (0.01, 2, "1")],
)
def test_the_target_is_the_concurrency_in_rounds(
    rounds: float, concurrency: int, expected: str
) -> None:
    trigger = trigger_of(
        {"concurrency": concurrency, "scaling": {"kind": "keda", "backlogRounds": rounds}}
    )
    assert trigger["metadata"]["value"] == expected


def test_the_queue_is_counted_by_http_with_what_is_being_worked_on() -> None:
    metadata = trigger_of({"scaling": {"kind": "keda"}})["metadata"]
    assert metadata | {"value": ""} == {
        "protocol": "http",
        "mode": "QueueLength",
        "excludeUnacknowledged": "false",
        "queueName": Topology("proofloop").queue("verifier").name,
        "vhostName": "/",
        "activationValue": "0",
        "value": "",
    }


def test_the_brokers_address_comes_from_the_secret() -> None:
    authentication = render(values_of("tls") | {"rabbitmqCluster": {}})[
        "TriggerAuthentication/proofloop-broker"
    ]
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "host", "name": "proofloop", "key": "proofloop_broker_api"}
    ]


def test_the_operators_broker_brings_its_user_and_address() -> None:
    objects = render(values_of("tls"))
    authentication = objects["TriggerAuthentication/proofloop-broker"]["spec"]["secretTargetRef"]
    assert [(entry["parameter"], entry["name"]) for entry in authentication] == [
        ("username", "proofloop-rabbitmq-default-user"),
        ("password", "proofloop-rabbitmq-default-user"),
    ]
    trigger = objects["ScaledObject/proofloop-verifier"]["spec"]["triggers"][0]
    assert trigger["metadata"]["host"] == "https://proofloop-rabbitmq.maths.svc:15671"


def test_the_autoscaler_trusts_ones_own_authority_as_the_workers_do() -> None:
    objects = render(values_of("tls"))
    trusted = objects["TriggerAuthentication/proofloop-broker"]["spec"]["configMapTargetRef"]
    assert trusted == [
        {"parameter": "ca", "name": "our-authority", "key": "ca.crt"},
        {"parameter": "tls", "name": "proofloop-broker", "key": "tls"},
    ]
    assert objects["ConfigMap/proofloop-broker"]["data"] == {"tls": "enable"}


def test_the_operators_broker_keeps_messages_longer_than_the_longest_call() -> None:
    values = values_of("nano") | {"broker": {"longestCallSeconds": 5000}}
    config = render(values)["RabbitmqCluster/proofloop-rabbitmq"]["spec"]["rabbitmq"][
        "additionalConfig"
    ]
    assert "consumer_timeout = 10000000\n" in config


@pytest.mark.parametrize("set_up", SET_UPS)
def test_a_pod_has_longer_to_end_than_the_longest_call(set_up: str) -> None:
    grace = {
        name: pod["spec"]["terminationGracePeriodSeconds"]
        for name, pod in pods(render(values_of(set_up)))
        if name.split("/")[0] in ("Deployment", "LeaderWorkerSet")
        and not name.endswith(("-review", "-flower"))  # they ask no model
    }
    assert grace and min(grace.values()) > 7200


def test_draining_can_be_cut_short_for_one_role() -> None:
    objects = render({"roles": {"verifier": {"drainSeconds": 0}}})
    assert objects["ConfigMap/proofloop-verifier"]["data"]["PROOFLOOP_DRAIN_S"] == "0"
    assert (
        objects["Deployment/proofloop-verifier"]["spec"]["template"]["spec"][
            "terminationGracePeriodSeconds"
        ]
        == 60
    )


def test_task_events_are_sent_by_the_roles_that_the_values_name() -> None:
    objects = render({"roles": {"verifier": {"taskEvents": True}}})
    sent = {
        name: objects[f"ConfigMap/proofloop-{name}"]["data"]["PROOFLOOP_TASK_EVENTS"]
        for name in ("verifier", "labeler")
    }
    assert sent == {"verifier": "true", "labeler": "false"}


def test_shrinking_is_slower_than_growing() -> None:
    scaled = render(values_of("production"))["ScaledObject/proofloop-generator"]["spec"]
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"] == {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}],
    }
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }


def test_a_role_that_is_scaled_has_no_number_of_replicas_for_helm_to_reset() -> None:
    objects = render(values_of("production"))
    assert "replicas" not in objects["Deployment/proofloop-verifier"]["spec"]
    assert objects["Deployment/proofloop-trainer"]["spec"]["replicas"] == 1


def test_the_plain_autoscaler_looks_at_the_processor_or_at_the_queue() -> None:
    cpu = render({"worker": {"scaling": {"kind": "hpa", "minReplicas": 0}}})
    spec = cpu["HorizontalPodAutoscaler/proofloop-verifier"]["spec"]
    assert spec["minReplicas"] == 1  # it cannot scale to none
    assert spec["metrics"][0]["resource"]["target"] == {
        "type": "Utilization",
        "averageUtilization": 60,
    }
    queue = render(values_of("single-role"))["HorizontalPodAutoscaler/proofloop-judges-verifier"][
        "spec"
    ]
    assert queue["metrics"][0]["external"] == {
        "metric": {
            "name": "rabbitmq_queue_messages",
            "selector": {"matchLabels": {"queue": "proofloop.verifier"}},
        },
        "target": {"type": "AverageValue", "averageValue": "128"},
    }


def test_there_is_one_trainer_without_autoscaling() -> None:
    worker = {"replicas": 3, "scaling": {"kind": "keda"}}
    objects = render({"roles": {"trainer": {"enabled": True}}, "worker": worker})
    assert objects["Deployment/proofloop-trainer"]["spec"]["replicas"] == 1
    assert "ScaledObject/proofloop-trainer" not in objects
    assert objects["Deployment/proofloop-trainer"]["spec"]["strategy"] == {"type": "Recreate"}


def test_a_model_may_take_an_hour_to_load() -> None:
    containers = [pod["spec"]["containers"][0] for _, pod in pods(render(values_of("production")))]
    patience = [
        container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
        for container in containers
        if container["name"] == "triton" and "startupProbe" in container
    ]
    # The verifier's versions are fetched before.
    assert sorted(patience) == [
        3600,
        3600,
        10800,
        10800,
    ]


def test_a_server_that_hangs_is_restarted_without_waiting_for_its_calls() -> None:
    containers = [pod["spec"]["containers"][0] for _, pod in pods(render(values_of("production")))]
    servers = [
        container
        for container in containers
        if container["name"] == "triton" and "livenessProbe" in container
    ]
    grace = [
        server[probe]["terminationGracePeriodSeconds"]
        for server in servers
        for probe in ("startupProbe", "livenessProbe")
    ]
    assert grace == [60] * 8


def test_a_rollout_may_wait_for_the_gpus_of_the_pod_that_goes() -> None:
    for name, one in render(values_of("production")).items():
        if name.startswith("Deployment/proofloop-verifier-0"):
            ends = one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            assert one["spec"]["progressDeadlineSeconds"] == ends + 10800 + 600


def test_the_large_models_settings_are_those_of_the_shipped_file() -> None:
    file = yaml.safe_load(
        (CHART.parents[1] / "serving/settings/deepseek-v3.2-8xh200.yaml").read_text()
    )
    servers = [
        one
        for name, one in render(values_of("production")).items()
        if name.startswith("ConfigMap/")
    ]
    found = [
        yaml.safe_load(one["data"]["model.yaml"]) for one in servers if "model.yaml" in one["data"]
    ]
    assert found.count(file) == 3
    others = {"tensor_parallel_size": 16, "moe_expert_parallel_size": 16, "max_batch_size": 16}
    assert [one for one in found if one != file] == [file | {"llm": file["llm"] | others}]


def test_what_plan_prints_is_accepted_and_gives_the_numbers_it_says() -> None:
    served: dict[Role, RoleCalls] = {
        role: RoleCalls(1000, 8000, 200, 2000, gpus=16 if role == "verifier" else 8)
        for role in MODEL_ROLES
    }
    concurrency: dict[Role, int] = dict(zip(PIPELINE_ROLES, (32, 48, 64, 3), strict=True))
    load = Load(500, busy=0.8, backlog_rounds=1.5, gpu_hour=2, concurrency=concurrency)
    rows = plan(runspec(), Habits(attempts=1), served, load)
    values = yaml.safe_load(values_snippet(rows, load))
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(values)] == []
    for role in MODEL_ROLES:
        values["roles"][role]["model"] = {"version": "m-1"}
    # Of one's own image.
    values["roles"]["verifier"]["serving"] |= {
        "command": ["mpirun"],
        "workerCommand": ["sshd"],
    }
    objects = render(values)
    for row in rows:
        name = f"proofloop-{row.role.replace('_', '-')}"
        scaled = objects[f"ScaledObject/{name}"]["spec"]
        assert scaled["maxReplicaCount"] == row.max_pods
        assert scaled["triggers"][0]["metadata"]["value"] == str(row.value)
        assert f'"--concurrency", "{row.concurrency}"' in json.dumps(objects[f"Deployment/{name}"])
    servers = [one for one in objects.values() if one["kind"] in ("Deployment", "LeaderWorkerSet")]
    assert sum(map(gpus_of, servers)) == sum(row.gpus for row in rows)


@pytest.mark.parametrize("limits", [None, {"memory": None}])
def test_a_server_with_gpus_needs_no_other_limit(limits: Object | None) -> None:
    values = {
        "serving": {"gpus": 8, "resources": {"limits": limits}},
        "roles": {"verifier": {"model": {"version": "m"}}},
    }
    [server] = [one for name, one in pods(render(values)) if "verifier-m-" in name]
    resources = server["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": 8}
    assert resources["requests"] == {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": 8}


def gpus_of(one: Object) -> int:
    """All GPUs that an object asks for."""
    size = one["spec"].get("leaderWorkerTemplate", {}).get("size", 1)
    found = [
        int(container["resources"].get("limits", {}).get("nvidia.com/gpu", 0))
        for _, pod in pods({"": one})
        for container in pod["spec"]["containers"]
    ]
    return int(one["spec"].get("replicas", 1)) * size * max(found)


def trigger_of(role: Object) -> Any:
    return render({"roles": {"verifier": role}})["ScaledObject/proofloop-verifier"]["spec"][
        "triggers"
    ][0]
