"""docker-compose.yml as far as it can be checked without an engine: who is in it, and how each of
them is fenced in.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import proofloop
from proofloop.api.files import read_run
from tests.integration.containers import MINIO_IMAGE, RABBITMQ_IMAGE

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
ROLES = ("generator", "verifier", "meta_verifier", "labeler", "trainer")
OURS = {name: service for name, service in SERVICES.items() if "proofloop-" in service["image"]}
IMAGE = "${PROOFLOOP_REGISTRY:-}proofloop-%s:${PROOFLOOP_VERSION:-%s}"


def test_one_command_starts_broker_store_five_roles_page_and_triton() -> None:
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert started == {"rabbitmq", "minio", "bucket", *ROLES, "review", "triton"}


@pytest.mark.parametrize("name", OURS)
def test_our_containers_cannot_write_their_image_and_have_no_rights(name: str) -> None:
    service = OURS[name]
    # Docker mounts it without exec, and kernels are compiled.
    scratch = ["/tmp:exec"] if name == "triton-gpu" else ["/tmp"]
    # Compose refuses to write the file of a `content:` into a container that cannot be written.
    is_read_only = "configs" not in service
    assert service["read_only"] is is_read_only
    assert (service["cap_drop"], service["tmpfs"]) == (["ALL"], scratch)
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


def test_flower_sees_every_queue_of_the_brokers_api(tmp_path: Path) -> None:
    flower = SERVICES["flower"]
    environment = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.defpath}",
        "FLOWER_BASIC_AUTH": "user:password",
        "PROOFLOOP_BROKER_API": flower["environment"]["PROOFLOOP_BROKER_API"],
        "PROOFLOOP_BROKER_PASSWORD": "a/b@c",
    }
    (tmp_path / "celery").write_text('#!/bin/sh\necho "$FLOWER_BROKER_API"\n')
    (tmp_path / "celery").chmod(0o755)
    command = [*flower["entrypoint"], *map(as_the_shell_sees_it, flower["command"])]
    started = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert started.stdout == "http://proofloop:a%2Fb%40c@rabbitmq:15672/api/\n", started.stderr


@pytest.mark.parametrize("name", OURS)
def test_an_image_has_the_released_tag_and_can_be_built(name: str) -> None:
    image, build = OURS[name]["image"], OURS[name]["build"]
    stem = image.removeprefix("${PROOFLOOP_REGISTRY:-}proofloop-").partition(":")[0]
    assert image == IMAGE % (stem, proofloop.__version__)
    assert (ROOT / build.get("dockerfile", "Dockerfile")).is_file()
    what = build["args"]["ROLE"] if "args" in build else build.get("target", "serving-gpu")
    assert what.replace("_", "-") == stem


@pytest.mark.parametrize("name", [name for name in OURS if not name.startswith("triton")])
def test_every_variable_of_the_env_file_reaches_our_services(name: str) -> None:
    # `required: false`: the file runs without it. A role's own key has a name of the user's choice.
    assert OURS[name]["env_file"] == [{"path": ".env", "required": False}]


def test_the_services_and_triton_have_the_same_key() -> None:
    keys = {service["environment"].get("PROOFLOOP_TRITON_KEY") for service in OURS.values()}
    assert keys == {"${PROOFLOOP_TRITON_KEY:-}"}


@pytest.mark.parametrize("name", OURS)
def test_the_services_and_triton_use_the_store_that_the_env_file_names(name: str) -> None:
    found = {key: value for key, value in OURS[name]["environment"].items() if "_S3_" in key}
    assert found == {
        "PROOFLOOP_S3_ENDPOINT": "${PROOFLOOP_S3_ENDPOINT:-http://minio:9000}",
        "PROOFLOOP_S3_BUCKET": "${PROOFLOOP_S3_BUCKET:-proofloop}",
        "PROOFLOOP_S3_PREFIX": "${PROOFLOOP_S3_PREFIX:-}",
        "PROOFLOOP_S3_REGION": "${PROOFLOOP_S3_REGION:-}",
        "PROOFLOOP_S3_ACCESS_KEY": "${S3_ACCESS_KEY:-proofloop}",
        "PROOFLOOP_S3_SECRET_KEY": "${S3_SECRET_KEY:-only-for-this-machine}",
    }


def test_no_address_contains_a_password() -> None:
    assert "PASSWORD:-" in COMPOSE and not re.search(r"://[^\s@]*\$\{[^@\s]*@", COMPOSE)


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "bucket"])
def test_every_service_that_stays_up_has_a_limit_of_memory(name: str) -> None:
    assert re.fullmatch(r"\d+g|\$\{GPU_MEMORY:-64g\}", SERVICES[name]["mem_limit"])


def as_the_shell_sees_it(word: str) -> str:
    """Compose fills in `$NAME` and makes `$` of `$$`."""
    return word.replace("$$", "$")


def test_the_tests_use_the_servers_of_the_compose_file() -> None:
    ours = {
        image.removeprefix("docker.io/").removeprefix("library/")
        for image in (RABBITMQ_IMAGE, MINIO_IMAGE)
    }
    assert ours == {SERVICES["rabbitmq"]["image"], SERVICES["minio"]["image"]}


def test_the_file_needs_no_other_file_to_run(tmp_path: Path) -> None:
    mounted = [volume for one in SERVICES.values() for volume in one.get("volumes", ())]
    assert not [volume for volume in mounted if volume.startswith("./")]
    run_file = tmp_path / "nano.toml"
    run_file.write_text(yaml.safe_load(COMPOSE)["configs"]["nano"]["content"])
    spec = read_run(run_file)
    assert (spec.name, spec.engine.settings["endpoints"]) == ("nano", ["triton:8001"])
