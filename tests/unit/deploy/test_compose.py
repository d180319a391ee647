"""docker-compose.yml as far as it can be checked without an engine: who is in it, and how each of
them is fenced in.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.containers import MINIO_IMAGE, RABBITMQ_IMAGE

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
    "services"
]
ROLES = ("generator", "verifier", "meta_verifier", "labeler", "trainer")
OURS = {
    name: service for name, service in SERVICES.items() if service["image"].startswith("proofloop-")
}


def test_one_command_starts_broker_store_five_roles_page_and_triton() -> None:
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert started == {"rabbitmq", "minio", "bucket", *ROLES, "review", "triton"}


@pytest.mark.parametrize("name", OURS)
def test_our_containers_cannot_write_their_image_and_have_no_rights(name: str) -> None:
    service = OURS[name]
    # Docker mounts it without exec, and kernels are compiled.
    scratch = ["/tmp:exec"] if name == "triton-gpu" else ["/tmp"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], scratch)
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("bucket", "cli")])
def test_every_service_that_stays_up_says_whether_it_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_no_port_is_open_to_the_network(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_flower_starts_with_a_password_only_and_shows_without_changing() -> None:
    flower = SERVICES["flower"]
    without = subprocess.run(
        [*flower["entrypoint"], *map(as_the_shell_sees_it, flower["command"])],
        env={},
        capture_output=True,
    )
    assert (
        without.returncode != 0 and b"FLOWER_BASIC_AUTH: set it to user:password" in without.stderr
    )
    assert flower["environment"]["FLOWER_READ_ONLY"] == "${FLOWER_READ_ONLY:-true}"


def test_flower_sees_every_queue_of_the_brokers_api() -> None:
    environment = SERVICES["flower"]["environment"]
    assert environment["FLOWER_BROKER_API"] == environment["PROOFLOOP_BROKER_API"] + "/api/"


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if "build" in service])
def test_every_image_has_its_dockerfile(name: str) -> None:
    assert (ROOT / OURS[name]["build"]["dockerfile"]).is_file()


def as_the_shell_sees_it(word: str) -> str:
    """Compose fills in `$NAME` and makes `$` of `$$`."""
    return word.replace("$$", "$")


def test_the_tests_use_the_servers_of_the_compose_file() -> None:
    ours = {
        image.removeprefix("docker.io/").removeprefix("library/")
        for image in (RABBITMQ_IMAGE, MINIO_IMAGE)
    }
    assert ours == {SERVICES["rabbitmq"]["image"], SERVICES["minio"]["image"]}
