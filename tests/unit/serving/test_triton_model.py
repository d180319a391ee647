"""The Triton model on a double of the module that only Triton has: what it says of failures, and
what it leaves out.
"""

from __future__ import annotations

import importlib
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")

from proofloop.errors import CallRefused, EngineError
from proofloop.schema.records import Sampling
from proofloop_serving.calls import Progress, ServingRequest
from proofloop_serving.triton.request import ParsedRequest


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CallRefused("too long a prompt"), "INVALID_ARG"),
        (EngineError("out of memory", retryable=True), "UNAVAILABLE"),
        (EngineError("CUDA error: an illegal memory access", retryable=False), "INTERNAL"),
    ],
)
def test_only_what_is_wrong_with_a_call_is_the_callers_mistake(
    error: EngineError, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MagicMock(as_numpy=lambda: np.array([b"Prove it."], dtype=object))
    triton = MagicMock(
        get_input_tensor_by_name=lambda request, name: text if name == "text_input" else None
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    for name in ("metrics", "model"):
        monkeypatch.delitem(sys.modules, f"proofloop_serving.triton.{name}", raising=False)
    module = importlib.import_module("proofloop_serving.triton.model")
    engine = MagicMock(begin=MagicMock(side_effect=error), counts=lambda: (0, 0))
    monkeypatch.setattr(module, "open_serving", lambda *_: engine)
    model, request = module.TritonPythonModel(), MagicMock(request_id=lambda: "a")
    model.initialize({"model_config": "{}", "model_name": "m"})
    model.execute([request])
    model.finalize()
    triton.TritonError.assert_called_once_with(str(error), getattr(triton.TritonError, code))
    request.get_response_sender().send.assert_called_once()


@pytest.mark.parametrize(("logprobs", "sent"), [([-1.0, -2.0], [-3.0]), ([], None)])
def test_a_sum_of_log_probabilities_is_sent_where_there_are_any(
    logprobs: list[float], sent: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = MagicMock(Tensor=lambda name, values: (name, values.tolist()))
    triton.InferenceResponse = lambda output_tensors: dict(output_tensors)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    for name in ("metrics", "model"):
        monkeypatch.delitem(sys.modules, f"proofloop_serving.triton.{name}", raising=False)
    module = importlib.import_module("proofloop_serving.triton.model")
    model = module.TritonPythonModel()
    model._version = "m"
    request = ServingRequest("a", "Prove it.", Sampling(), seed=0)
    parsed = ParsedRequest(
        request=request, want_echo=False, outputs_requested=frozenset({"cumulative_logprob"})
    )
    chunk = model._chunk(
        parsed, Progress(text="Done.", finish_reason="stop", token_ids=[1, 2], logprobs=logprobs)
    )
    assert chunk.get("cumulative_logprob") == sent
