"""The contract between a Triton server and its clients: tensors by name and Triton type, shape
[-1], no batch dimension.

It extends TensorRT-LLM's `llmapi` model: the tensors under LLMAPI have the names and types of that
model, and a client of one can call the other. All inputs but `text_input` are optional; proofloop's
model takes `messages` in its place.

A request that can never work (the prompt is too long) fails with INVALID_ARG. A request that may
work later fails with UNAVAILABLE. If the model itself fails, all its running requests fail with
INTERNAL. A server frees the slot on `stop` and when the client cancels the stream.
"""

from __future__ import annotations

import json

LLMAPI_INPUTS = {
    "text_input": "TYPE_STRING",
    "streaming": "TYPE_BOOL",
    "sampling_param_max_tokens": "TYPE_INT32",
    "sampling_param_temperature": "TYPE_FP32",
    "sampling_param_top_p": "TYPE_FP32",
    "sampling_param_top_k": "TYPE_INT32",
    "sampling_param_stop": "TYPE_STRING",
    "sampling_param_seed": "TYPE_UINT64",
    "sampling_param_exclude_input_from_output": "TYPE_BOOL",
    "return_finish_reason": "TYPE_BOOL",
    "return_stop_reason": "TYPE_BOOL",
    "return_cumulative_logprob": "TYPE_BOOL",
    "stop": "TYPE_BOOL",  # cancel the running request with the same id
}

OUR_INPUTS = {
    # JSON list of {"role", "content"}: the server applies the model's chat template
    "messages": "TYPE_STRING",
    # send the token tensors of OUR_OUTPUTS with the last chunk
    "return_tokens": "TYPE_BOOL",
}

LLMAPI_OUTPUTS = {
    "text_output": "TYPE_STRING",  # each chunk holds the whole text so far
    "finish_reason": "TYPE_STRING",  # stop, length, timeout, cancelled; empty before the last chunk
    "stop_reason": "TYPE_STRING",
    "cumulative_logprob": "TYPE_FP32",
}

OUR_OUTPUTS = {
    "prompt_token_ids": "TYPE_INT32",  # [P] as read by the model
    "token_ids": "TYPE_INT32",  # [C] as sampled
    "logprobs": "TYPE_FP32",  # [C] natural logarithms under the sampling distribution
    # [(P + C - 1) * E] for a mixture of experts: each token's experts, layer by layer
    "routed_experts": "TYPE_INT32",
    "num_input_tokens": "TYPE_INT32",  # [1]
    "num_cached_tokens": "TYPE_INT32",  # [1] prompt tokens found in the prefix cache
    # [1] so far; a chunk without new text shows that the call is alive
    "num_output_tokens": "TYPE_INT32",
    "engine_seconds": "TYPE_FP32",  # [1] the call's share of the engine's time
    "model_version": "TYPE_STRING",  # the version that answered
}

VERSION, SETTINGS = "version", "settings"
"""Parameters of a Triton model: its version, and the name of the file with its engine's settings.
"""

MODEL_FILE = "from proofloop_serving.triton.model import TritonPythonModel\n"
"""A model's complete model.py. It needs the package proofloop-serving on the server."""


def model_config(version: str, settings: str = "") -> str:
    """The Triton config of a model, as JSON. Triton adds inputs and outputs from
    `auto_complete_config`.
    """
    parameters = {VERSION: version, SETTINGS: settings}
    config = {
        "backend": "python",
        "max_batch_size": 0,
        "model_transaction_policy": {"decoupled": True},
        # for the Python stub only: the engine inside finds its own GPUs
        "instance_group": [{"kind": "KIND_CPU"}],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    return json.dumps(config)


def triton_name(version: str) -> str:
    """The name of a version's Triton model. Each version has a model of its own.

    >>> triton_name("runs/demo/models/verifier/000003")
    'runs.demo.models.verifier.000003'
    """
    return version.replace("/", ".")
