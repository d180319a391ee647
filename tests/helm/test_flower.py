"""Flower: there when it is wanted, with a password, told and allowed no more than it needs."""

from __future__ import annotations

from tests.helm.chart import Object, notes, render, values_of


def flower(values: Object) -> dict[str, Object]:
    """Flower's objects, by kind."""
    return {
        key.split("/")[0]: one
        for key, one in render(values).items()
        if key.endswith("/proofloop-flower")
    }


def environment(values: Object) -> dict[str, object]:
    (container,) = flower(values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_flower_is_there_only_when_it_is_enabled() -> None:
    assert flower({}) == {}
    assert set(flower({"flower": {"enabled": True}})) == {
        "Deployment",
        "NetworkPolicy",
        "Service",
        "ServiceAccount",
    }


def test_enabling_it_changes_nothing_else() -> None:
    with_flower, without = render({"flower": {"enabled": True}}), render({})
    assert {key: one for key, one in with_flower.items() if not key.endswith("-flower")} == without


def test_it_runs_from_the_labelers_image_and_asks_for_a_password() -> None:
    (container,) = flower(values_of("production"))["Deployment"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["command"] == ["celery", "-A", "proofloop.worker.service", "flower"]
    assert container["image"] == "registry.example.org/maths/proofloop-labeler:0.1.0"
    # Not optional: no pod without.
    password = {"secretKeyRef": {"name": "proofloop", "key": "proofloop_flower_auth"}}
    assert environment(values_of("production"))["FLOWER_BASIC_AUTH"] == password


def test_it_only_shows_unless_the_values_say_otherwise() -> None:
    assert environment({"flower": {"enabled": True}})["FLOWER_READ_ONLY"] == "true"
    changing = {
        "flower": {"enabled": True, "readOnly": False, "taskEvents": False, "maxTasks": 2000000}
    }
    told = environment(changing)
    assert (told["FLOWER_READ_ONLY"], told["FLOWER_ENABLE_EVENTS"], told["FLOWER_MAX_TASKS"]) == (
        *("false", "false"),
        "2000000",
    )


def test_its_only_secrets_are_the_brokers_address_and_password() -> None:
    found = flower({"flower": {"enabled": True}})
    ports = [
        port["port"] for rule in found["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]
    ]
    assert ports == [53, 53, 5672, 5671, 15672, 15671]
    address, password = [
        [{"key": key, "path": key}] for key in ("proofloop_broker", "proofloop_broker_password")
    ]
    assert secrets_of(found) == [
        {"secret": {"name": "proofloop", "items": address}},
        {"secret": {"name": "proofloop", "optional": True, "items": password}},
    ]


def test_it_finds_the_operators_broker() -> None:
    (source,) = secrets_of(
        flower({"flower": {"enabled": True}, "rabbitmqCluster": {"enabled": True}})
    )
    key = {"key": "connection_string", "path": "proofloop_broker"}
    assert source == {"secret": {"name": "proofloop-rabbitmq-default-user", "items": [key]}}


def test_only_the_named_namespace_opens_it_in_production() -> None:
    policy = flower(values_of("production"))["NetworkPolicy"]
    controller = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}
    }
    assert policy["spec"]["ingress"] == [{"ports": [{"port": 5555}], "from": [controller]}]


def test_the_notes_say_how_to_open_it() -> None:
    assert "port-forward service/proofloop-flower 5555:80" in notes(values_of("production"))
    assert "flower" not in notes({})


def secrets_of(found: dict[str, Object]) -> list[Object]:
    volumes = {
        one["name"]: one for one in found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    }
    sources: list[Object] = volumes["secrets"]["projected"]["sources"]
    return sources
