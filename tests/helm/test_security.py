"""Every pod of every set-up obeys the strictest rules; no pod has API rights; policies allow only
needed traffic.
"""

from __future__ import annotations

import pytest

from tests.helm.chart import SET_UPS, pods, render, values_of

CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "privileged": False,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.mark.parametrize("set_up", SET_UPS)
def test_every_pod_is_restricted(set_up: str) -> None:
    objects = render(values_of(set_up))
    found = dict(pods(objects))
    assert found
    for name, pod in found.items():
        spec, rules = pod["spec"], pod["spec"]["securityContext"]
        assert (
            rules["runAsNonRoot"] and rules["runAsUser"] == 10001 and rules["runAsGroup"] == 10001
        ), name
        assert rules["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec), name
        for container in spec["containers"]:
            assert container["securityContext"] == CONTAINER, name
            assert "memory" in container["resources"]["limits"], name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name


@pytest.mark.parametrize("set_up", SET_UPS)
def test_on_openshift_no_pod_chooses_its_user_and_all_may_ask_its_dns(set_up: str) -> None:
    objects = render(values_of(set_up) | {"openshift": True})
    for name, pod in pods(objects):
        rules = pod["spec"]["securityContext"]
        assert rules["runAsNonRoot"], name
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(rules), name
    for name, one in objects.items():
        if one["kind"] == "NetworkPolicy":
            ports = [port for rule in one["spec"]["egress"] for port in rule.get("ports", ())]
            assert {"port": 5353, "protocol": "UDP"} in ports, name


@pytest.mark.parametrize("set_up", SET_UPS)
def test_no_pod_can_talk_to_kubernetes(set_up: str) -> None:
    objects = render(values_of(set_up))
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {
        one["kind"] for one in objects.values()
    }
    for name, pod in pods(objects):
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        account = objects[f"ServiceAccount/{pod['spec']['serviceAccountName']}"]
        assert account["automountServiceAccountToken"] is False, name


def test_every_pod_that_uses_the_store_can_have_an_iam_role_instead_of_keys() -> None:
    values, role = values_of("production"), {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/p"}
    objects = render(values | {"serviceAccount": {"annotations": role}})
    for name, pod in pods(objects):
        [container] = pod["spec"]["containers"]
        account = objects[f"ServiceAccount/{pod['spec']['serviceAccountName']}"]
        expected = {} if container["name"] == "flower" else role
        assert account["metadata"].get("annotations", {}) == expected, name


@pytest.mark.parametrize("set_up", SET_UPS)
def test_a_secret_reaches_a_pod_as_files_but_for_tritons_key_and_flowers_password(
    set_up: str,
) -> None:
    allowed = {"triton": {"PROOFLOOP_TRITON_KEY"}, "flower": {"FLOWER_BASIC_AUTH"}}
    for name, pod in pods(render(values_of(set_up))):
        for container in pod["spec"]["containers"]:
            from_elsewhere = {
                entry["name"]
                for entry in container.get("env", [])
                if "secretKeyRef" in entry.get("valueFrom", ())
            }
            assert from_elsewhere <= allowed.get(container["name"], set()), name
            assert not [
                source for source in container.get("envFrom", []) if "secretRef" in source
            ], name


def test_every_pod_that_knows_the_broker_shows_it_the_client_certificate() -> None:
    values = values_of("tls")
    objects = render(values)
    for role in ("generator", "verifier", "meta-verifier", "labeler"):
        data = objects[f"ConfigMap/proofloop-{role}"]["data"]
        assert data["PROOFLOOP_BROKER_CERT"] == "/etc/proofloop/client/tls.crt"
        assert data["PROOFLOOP_BROKER_KEY"] == "/etc/proofloop/client/tls.key"
    volume = {
        "name": "client",
        "secret": {"secretName": values["broker"]["clientSecret"], "defaultMode": 0o440},
    }
    for name, pod in pods(objects):
        if "secrets" in [one["name"] for one in pod["spec"]["volumes"]]:
            assert volume in pod["spec"]["volumes"], name
            mounts = {
                one["name"]: one["mountPath"]
                for one in pod["spec"]["containers"][0]["volumeMounts"]
            }
            assert mounts["client"] == "/etc/proofloop/client", name


@pytest.mark.parametrize("set_up", SET_UPS)
def test_every_pod_has_a_policy_that_limits_both_directions(set_up: str) -> None:
    objects = render(values_of(set_up))
    policies = [one["spec"] for one in objects.values() if one["kind"] == "NetworkPolicy"]
    for name, pod in pods(objects):
        mine = [policy for policy in policies if selects(policy["podSelector"]["matchLabels"], pod)]
        assert {direction for policy in mine for direction in policy["policyTypes"]} == {
            "Ingress",
            "Egress",
        }, name


def test_a_model_server_answers_the_pods_of_its_release_only() -> None:
    policy = render(values_of("production"))["NetworkPolicy/proofloop-verifier-model"]
    calls = [rule for rule in policy["spec"]["ingress"] if rule.get("ports") == [{"port": 8001}]]
    labels = {"app.kubernetes.io/name": "proofloop", "app.kubernetes.io/instance": "proofloop"}
    assert calls == [
        {"ports": [{"port": 8001}], "from": [{"podSelector": {"matchLabels": labels}}]}
    ]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://s3:8333", 8333), ("http://s3/", 80), ("https://s3", 443), ("https://s3:9000/", 9000)],
)
def test_a_pod_may_reach_the_store_on_the_port_of_its_address(endpoint: str, port: int) -> None:
    objects = render(
        {
            "store": {"endpoint": endpoint},
            "networkPolicy": {"store": {"ports": [443]}},
            "roles": {"verifier": {"model": {"version": "m"}}},
        }
    )
    for name in ("proofloop-verifier", "proofloop-verifier-model"):
        egress = objects[f"NetworkPolicy/{name}"]["spec"]["egress"]
        assert {"port": port} in [one for rule in egress for one in rule.get("ports", ())], name


def test_the_job_that_promotes_a_version_may_ask_the_servers_that_load_it() -> None:
    objects = render(values_of("production"))
    job = objects["Job/proofloop-verifier-promote"]["spec"]["template"]
    policies = [one["spec"] for one in objects.values() if one["kind"] == "NetworkPolicy"]
    mine = [policy for policy in policies if selects(policy["podSelector"]["matchLabels"], job)]
    [there] = [
        rule["to"]
        for one in mine
        for rule in one["egress"]
        if rule.get("ports") == [{"port": 8001}]
    ]
    servers = [
        pod for name, pod in pods(objects) if name.startswith("Deployment/proofloop-verifier-0000")
    ]
    assert len(servers) == 2
    for pod in servers:
        assert selects(there[0]["podSelector"]["matchLabels"], pod)


def test_a_pod_that_runs_one_command_runs_where_and_as_the_workers_do() -> None:
    values = values_of("production")
    values["worker"] |= {
        "tolerations": [{"key": "cpu", "operator": "Exists"}],
        "env": {"HTTPS_PROXY": "http://p:3128"},
    }
    found = {
        name: pod["spec"] for name, pod in pods(render(values)) if name.startswith(("Job/", "Pod/"))
    }
    assert len(found) == 2
    for name, spec in found.items():
        assert spec["nodeSelector"] == {"pool": "cpu"}, name
        assert spec["tolerations"] == [{"key": "cpu", "operator": "Exists"}], name
        assert {"name": "HTTPS_PROXY", "value": "http://p:3128"} in spec["containers"][0]["env"], (
            name
        )


def test_only_the_named_namespace_reads_metrics_in_production() -> None:
    policy = render(values_of("production"))["NetworkPolicy/proofloop-verifier"]
    assert policy["spec"]["ingress"] == [
        {
            "ports": [{"port": 9464}],
            "from": [
                {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": "monitoring"}
                    }
                }
            ],
        }
    ]


def selects(labels: dict[str, str], pod: dict[str, dict[str, dict[str, str]]]) -> bool:
    return labels.items() <= pod["metadata"]["labels"].items()
