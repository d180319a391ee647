"""What a person may set: every value says when to change it, and what is misspelt or impossible is
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml
from jsonschema import Draft202012Validator

from proofloop.config.settings import Settings
from tests.helm.chart import (
    CHART,
    REGISTRY,
    ROOT,
    SET_UPS,
    Object,
    notes,
    render,
    values_of,
)

WHEN = re.compile(r"^(Set|Change|Raise|Lower|Leave)\b.*\b(when|where|unless|while|at)\b")


def test_every_value_has_one_line_that_says_when_to_change_it() -> None:
    text = (CHART / "values.yaml").read_text()
    lines, leaves = text.splitlines(), dict(leaves_of(yaml.compose(text)))
    assert len(leaves) > 100
    assert [
        path for path, number in leaves.items() if not WHEN.match(comment_above(lines, number))
    ] == []


def test_a_key_that_is_nowhere_is_refused_below_every_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    validator = Draft202012Validator(schema)
    paths = {
        path.rpartition(".")[0]
        for path, _ in leaves_of(yaml.compose((CHART / "values.yaml").read_text()))
    }
    taken = {
        path for path in paths if validator.is_valid(below(path.split("."), {"colour": "red"}))
    }
    assert taken == {"monitoring.dashboardLabels"}  # these keys are the user's own
    assert len(paths) > 30


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    assert set(schema["$defs"]["worker"]["properties"]) == set(values["worker"])
    assert set(schema["$defs"]["serving"]["properties"]) == set(values["serving"])
    for page in ("review", "flower"):
        assert set(schema["properties"][page]["properties"]) == set(values[page])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"roles": {"verifyer": {}}}, "'verifyer' not allowed"),
        ({"roles": {"verifier": None}}, "roles.verifier is null"),
        ({"roles": None}, "roles.generator is null"),
        ({"roles": {"verifier": {"concurency": 3}}}, "'concurency' not allowed"),
        ({"roles": {"verifier": {"scaling": {"max": 3}}}}, "'max' not allowed"),
        ({"roles": {"labeler": {"model": {}}}}, "'model' not allowed"),
        ({"roles": {"trainer": {"concurrency": 8}}}, "value must be 1"),
        ({"roles": {"verifier": {"concurrency": "many"}}}, "want integer"),
        ({"worker": {"scaling": {"kind": "magic"}}}, "must be one of 'none', 'keda', 'hpa'"),
        ({"store": {"endpoint": "s3.example.org"}}, "does not match pattern"),
        ({"store": {"endpoint": ""}}, "store.endpoint is empty"),
        ({"secrets": {"existingSecret": ""}}, "minLength"),
        ({"serving": {"weights": {"existingClaim": "a", "hostPath": "/b"}}}, "not"),
        ({"serving": {"settings": {"engine": "vllm"}}}, "not"),
        (
            {
                "serving": {"kind": "LeaderWorkerSet"},
                "roles": {"verifier": {"model": {"version": "m"}}},
            },
            "of verifier: set command and workerCommand",
        ),
        (
            {"rabbitmqCluster": {"enabled": True}, "broker": {"vhost": "maths"}},
            'broker.vhost "maths"',
        ),
        ({"review": {"enable": True}}, "'enable' not allowed"),
        ({"review": {"run": "../other"}}, "does not match pattern"),
        ({"review": {"ingress": {"enabled": True}}}, "minLength"),
        ({"flower": {"maxTasks": 0}}, "minimum"),
        ({"flower": {"basicAuth": "user:password"}}, "'basicAuth' not allowed"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(values: Object, complaint: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(complaint)):
        render(values)


def test_a_key_with_only_comments_below_it_sets_no_variables() -> None:
    model: Object = {"roles": {"verifier": {"model": {"version": "m"}}}}
    assert render(model | {"worker": {"env": None}, "serving": {"env": None}}) == render(model)


def test_a_share_of_a_processor_may_be_a_number() -> None:
    role = render({"worker": {"resources": {"requests": {"cpu": 0.5}}}})[
        "Deployment/proofloop-verifier"
    ]
    (container,) = role["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": 0.5, "memory": "512Mi"}


@pytest.mark.parametrize(
    ("tag", "image"),
    [
        ("0.2.0", "proofloop-verifier:0.2.0"),
        ("sha256:" + "a" * 64, "proofloop-verifier@sha256:" + "a" * 64),
        ("0.2.0@sha256:" + "a" * 64, "proofloop-verifier:0.2.0@sha256:" + "a" * 64),
    ],
)
def test_an_image_has_a_tag_or_a_digest(tag: str, image: str) -> None:
    role = render({"roles": {"verifier": {"image": {"tag": tag}}}})["Deployment/proofloop-verifier"]
    (container,) = role["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{REGISTRY}/{image}"


@pytest.mark.parametrize("page", ["kubernetes", "alerts"])
def test_every_set_of_the_guide_is_accepted(page: str) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    found = re.findall(r"--set\s+'?([^'`\s]+)", text)
    assert found
    for expression in found:
        render(helm_python.parse_set_string(expression))


def test_images_without_a_registry_are_refused_unless_the_nodes_have_them() -> None:
    with pytest.raises(helm_python.HelmError, match=r"registry is empty.*proofloop-generator"):
        render({"image": {"registry": ""}})
    own = render({"image": {"registry": "", "pullPolicy": "Never"}})
    (container,) = own["Deployment/proofloop-labeler"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "proofloop-labeler:0.1.0"


def test_the_notes_name_the_images_and_the_sign_that_they_are_missing() -> None:
    text = notes({"image": {"registry": "ghcr.io/owner", "tag": "0.9.0"}})
    assert "The images come from ghcr.io/owner, tag 0.9.0." in text and "ImagePullBackOff" in text


@pytest.mark.parametrize("set_up", SET_UPS)
def test_every_variable_of_ours_is_one_the_services_know(set_up: str) -> None:
    configured = {
        name
        for one in render(values_of(set_up)).values()
        if one["kind"] == "ConfigMap"
        for name in one["data"]
        if name.startswith("PROOFLOOP_")
    }
    known = {f"PROOFLOOP_{name.upper()}" for name in Settings.model_fields}
    assert configured - known == {"PROOFLOOP_SECRETS"}


def test_a_role_that_is_switched_off_leaves_nothing_behind() -> None:
    objects = render({"roles": {"verifier": {"enabled": False}}})
    assert not [name for name in objects if name.endswith("/proofloop-verifier")]


def test_the_name_stays_within_what_kubernetes_takes() -> None:
    values: Object = values_of("production")
    names = [
        key.split("/")[1]
        for key in render(values, name="a-release-with-a-name-that-is-much-too-long-for-us")
    ]
    # A LeaderWorkerSet's pods get up to 11 more, and 63 is the end.
    assert max(map(len, names)) <= 52


def test_a_service_has_a_name_that_kubernetes_takes_whatever_the_releases_name() -> None:
    # Helm allows dots and a digit first, a Service does not.
    assert "Service/maths-prod-verifier" in render({}, name="maths.prod")
    with pytest.raises(helm_python.HelmError, match='"3d-proofs" does not begin with a letter'):
        render({}, name="3d-proofs")
    assert "Service/proofs-verifier" in render({"nameOverride": "proofs"}, name="3d-proofs")


def leaves_of(node: yaml.MappingNode, path: str = "") -> Iterator[tuple[str, int]]:
    """All values that are not mappings, by path, with their line numbers."""
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from leaves_of(value, f"{path}{key.value}.")
        else:
            yield f"{path}{key.value}", key.start_mark.line


def below(path: list[str], value: Object) -> Object:
    for name in reversed([name for name in path if name]):
        value = {name: value}
    return value


def comment_above(lines: list[str], number: int) -> str:
    """The comment right above a line, of one or two lines, without its marks."""
    words: list[Any] = []
    while number > 0 and lines[number - 1].lstrip().startswith("# "):
        number -= 1
        words.insert(0, lines[number].lstrip()[2:])
    return " ".join(words)
