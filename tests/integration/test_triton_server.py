"""The Triton that tests start: its models run on the Python of the tests, and nothing of it is left behind."""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from tests.integration.triton_server import own_triton

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


def test_models_import_what_the_tests_import_and_nothing_is_left() -> None:
    with own_triton() as triton:
        assert triton.repository and triton.kill and triton.start
        folder = triton.repository / "probe" / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL)
        (folder.parent / "config.pbtxt").write_text(CONFIG)
        for _ in range(2):
            with InferenceServerClient(triton.endpoint) as client:
                client.load_model("probe")
                answer = client.infer("probe", []).as_numpy("out")
            assert answer is not None and answer[0].startswith(b"proofloop torch")
            triton.kill()
            triton.start()
        port = triton.endpoint.partition(":")[2]
    assert list(Path("/dev/shm").glob(f"proofloop-{port}-*")) == []
