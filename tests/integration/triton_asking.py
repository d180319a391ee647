"""Asks a real Triton server for tensors of our contract, as any client may."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from proofloop.engine.triton.contract import (
    LLMAPI_INPUTS,
    OUR_INPUTS,
    SETTINGS,
    VERSION,
    triton_name,
)
from proofloop.store import LocalStore
from proofloop.store.model_folders import publish_folder
from proofloop_trainer.checkpoint import write_model_manifest
from tests.integration.triton_server import Triton

STUB = b"from proofloop_serving.triton.model import TritonPythonModel as TritonPythonModel\n"
FIRST = "runs/serving/models/verifier/000001"
TYPES = {"TYPE_STRING": object, "TYPE_BOOL": bool, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32}
TYPES["TYPE_UINT64"] = np.uint64


@dataclass
class Server:
    """A Triton whose models read versions from `store`."""

    triton: Triton
    store: LocalStore

    def publish(self, version: str, folder: Path, into: Path) -> None:
        """Put a copy of a model's folder into the store as a version."""
        shutil.copytree(folder, into)
        write_model_manifest(into, 0)
        publish_folder(self.store, into, version)

    def load(self, version: str, settings: str = "nano-cpu.yaml") -> None:
        parameters = {VERSION: version, SETTINGS: settings}
        config = {
            "backend": "python",
            "parameters": {name: {"string_value": value} for name, value in parameters.items()},
        }
        with InferenceServerClient(self.triton.endpoint) as client:
            client.load_model(
                triton_name(version), config=json.dumps(config), files={"file:1/model.py": STUB}
            )

    def figure(self, name: str, version: str = FIRST) -> float:
        """One of our metrics, after the server's next look."""
        with urllib.request.urlopen(self.triton.metrics) as answer:
            lines = answer.read().decode().splitlines()
        (line,) = [
            line
            for line in lines
            if line.startswith(f"proofloop_serving_{name}{{") and f'"{version}"' in line
        ]
        return float(line.split()[-1])


@dataclass
class Asked:
    """A request on a separate stream: its chunks, and its error if it failed."""

    client: InferenceServerClient
    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)
    error: InferenceServerException | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)

    def take(self, result: object, error: InferenceServerException | None) -> None:
        if error is None:
            response = result.get_response()
            if response.outputs:
                self.chunks.append(
                    {output.name: result.as_numpy(output.name) for output in response.outputs}
                )
                self.began.set()
            is_final = response.parameters["triton_final_response"].bool_param
        self.error = error
        if error is not None or is_final:
            self.ended.set()

    def last(self) -> dict[str, np.ndarray]:
        assert self.ended.wait(60), "no answer within a minute"
        self.client.stop_stream()
        self.client.close()
        if self.error:
            raise self.error
        return self.chunks[-1]

    def text(self) -> str:
        return self.last()["text_output"][0].decode()


def ask(server: Server, request_id: str = "", version: str = FIRST, /, **values: object) -> Asked:
    """Send a request; `values` are the tensors of the contract by name."""
    asked = Asked(InferenceServerClient(server.triton.endpoint))
    asked.client.start_stream(asked.take)
    asked.client.async_stream_infer(
        triton_name(version),
        inputs_of(values),
        request_id=request_id,
        enable_empty_final_response=True,
    )
    return asked


def inputs_of(values: dict[str, object]) -> list[InferInput]:
    inputs = []
    for name, value in values.items():
        kind = TYPES[(LLMAPI_INPUTS | OUR_INPUTS)[name]]
        listed = value if isinstance(value, list) else [value]
        array = np.array(
            [each.encode() if isinstance(each, str) else each for each in listed], dtype=kind
        )
        inputs.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return inputs
