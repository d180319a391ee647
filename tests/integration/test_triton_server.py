"""The Triton that tests start: its models run on the Python of the tests, and nothing of it is left
behind.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient

from tests.integration.processes import free_ports, says, until
from tests.integration.triton_server import as_first_process, own_triton

MODEL = """
import proofloop, torch, transformers, numpy, triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        text = f"{proofloop.__name__} {torch.__name__} {numpy.__version__}"
        out = pb.Tensor("out", numpy.array([text.encode()], dtype=object))
        return [pb.InferenceResponse([out]) for _ in requests]
"""

CONFIG = """
backend: "python"
input [{name: "in", data_type: TYPE_STRING, dims: [-1], optional: true}]
output [{name: "out", data_type: TYPE_STRING, dims: [-1]}]
instance_group [{kind: KIND_CPU}]
"""


def add_model(repository: Path, name: str, code: str) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    (folder.parent / "config.pbtxt").write_text(CONFIG)


def test_models_import_what_the_tests_import_and_nothing_is_left() -> None:
    with own_triton() as triton:
        assert triton.repository and triton.kill and triton.start
        add_model(triton.repository, "probe", MODEL)
        for _ in range(2):
            with InferenceServerClient(triton.endpoint) as client:
                client.load_model("probe")
                answer = client.infer("probe", []).as_numpy("out")
            assert answer is not None and answer[0].startswith(b"proofloop torch")
            triton.kill()
            triton.start()
        port = triton.endpoint.partition(":")[2]
    assert list(Path("/dev/shm").glob(f"proofloop-{port}-*")) == []


LOADS_AT_ONCE = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""

LOADS_LONG = """
import time

class TritonPythonModel:
    def initialize(self, arguments):
        time.sleep(600)
"""


def test_a_container_that_still_loads_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    add_model(tmp_path / "models", "long", LOADS_LONG)
    log = tmp_path / "log"
    with as_first_process(tmp_path / "models", log, "--load-model=long") as process:
        until(lambda: says(log, "loading: long:1"), log)
        os.kill(process, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{process}").exists(), log)


def test_a_container_ends_when_the_process_of_its_model_died(tmp_path: Path) -> None:
    add_model(tmp_path / "models", "probe", LOADS_AT_ONCE)
    log = tmp_path / "log"
    with as_first_process(tmp_path / "models", log, "--load-model=probe") as process:
        until(lambda: says(log, "Started Metrics Service"), log)
        os.kill(process_of_model(process), signal.SIGKILL)
        until(lambda: not Path(f"/proc/{process}").exists(), log)
    assert says(log, "the process of a model died")


def process_of_model(container: int) -> int:
    [found] = [
        child
        for server in children(container)
        for child in children(server)
        if Path(f"/proc/{child}/comm").read_text().startswith("triton_python")
    ]
    return found


def children(process: int) -> list[int]:
    """Those of all its threads."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_a_container_that_ends_waits_for_its_calls_as_long_as_the_longest_takes(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with as_first_process(tmp_path, log) as process:
        until(lambda: says(log, "Started Metrics Service"), log)
        os.kill(process, signal.SIGTERM)
        until(lambda: says(log, "Timeout 123: "), log)
        until(lambda: not Path(f"/proc/{process}").exists(), log)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_metrics_page_of_a_pod_of_ipv6_listens_on_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOFLOOP_POD_IP", "fd00::2")
    log, [port] = tmp_path / "log", free_ports(1)
    with as_first_process(tmp_path, log, f"--metrics-port={port}"):
        until(lambda: says(log, "Started Metrics Service"), log)
        assert httpx.get(f"http://[::1]:{port}/metrics").status_code == 200
