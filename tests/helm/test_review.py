"""The review page in the chart: off by default, with its settings, reachable only as the values
allow.
"""

from __future__ import annotations

from tests.helm.chart import Object, notes, render, values_of


def page(values: Object) -> dict[str, Object]:
    """The page's objects, by kind."""
    return {
        key.split("/")[0]: one
        for key, one in render(values).items()
        if key.endswith("/proofloop-review")
    }


def test_the_page_is_there_only_when_it_is_enabled() -> None:
    assert page({}) == {}
    assert set(page({"review": {"enabled": True}})) == {
        "Deployment",
        "NetworkPolicy",
        "Service",
        "ServiceAccount",
    }


def test_enabling_it_changes_nothing_else() -> None:
    with_page, without = render({"review": {"enabled": True}}), render({})
    assert {key: one for key, one in with_page.items() if not key.endswith("-review")} == without


def test_the_review_page_runs_the_labelers_image_with_the_values_of_the_chart() -> None:
    (container,) = page(values_of("production"))["Deployment"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["command"] == [
        *("proofloop", "ui", "--host", "", "--port", "8321", "--spot-checks", "50"),
        *("--analyses", "0", "--overlap", "1"),
        "olympiad",
    ]
    assert container["image"] == "registry.example.org/maths/proofloop-labeler:0.1.0"
    assert {"name": "PROOFLOOP_S3_ENDPOINT", "value": "https://s3.example.org"} in container["env"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["tcpSocket"] == {"port": "http"}


def test_only_the_ingress_controller_opens_it_in_production() -> None:
    found = page(values_of("production"))
    controller = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}
    }
    assert found["NetworkPolicy"]["spec"]["ingress"] == [
        {"ports": [{"port": 8321}], "from": [controller]}
    ]
    (rule,), (tls,) = found["Ingress"]["spec"]["rules"], found["Ingress"]["spec"]["tls"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], tls) == (
        "review.example.org",
        {"hosts": ["review.example.org"], "secretName": "review-certificate"},
    )
    assert path["backend"]["service"] == {"name": "proofloop-review", "port": {"name": "http"}}
    (port,) = found["Service"]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")


def test_the_notes_say_where_it_is() -> None:
    assert "https://review.example.org/" in notes(values_of("production"))
    assert "port-forward service/proofloop-review 8321:80" in notes({"review": {"enabled": True}})
    assert "review" not in notes({})
