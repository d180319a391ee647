"""What a Triton server and its clients say to each other: tensors by name and Triton type, shape
[-1], no batch dimension.

A superset of TensorRT-LLM's `llmapi` model: what stands under LLMAPI has the names and types of
that model, so that a client of the one can talk to the other. All inputs but `text_input` are
optional; of ours, `messages` takes its place.

A request that can never work (too long a prompt) fails with INVALID_ARG, one that may work later
with UNAVAILABLE, one that the model failed at, with all that it was answering, with INTERNAL. A
server frees the slot on `stop` and when the request's stream is cancelled.
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
    "stop": "TYPE_BOOL",  # cancel the running request of the same id
}

OUR_INPUTS = {
    # JSON list of {"role", "content"}: the server applies the model's chat template
    "messages": "TYPE_STRING",
    # send the tensors of OUR_OUTPUTS that name tokens, with the last chunk
    "return_tokens": "TYPE_BOOL",
}

LLMAPI_OUTPUTS = {
    "text_output": "TYPE_STRING",  # each chunk carries the whole text so far
    "finish_reason": "TYPE_STRING",  # stop, length, timeout, cancelled; empty before the last chunk
    "stop_reason": "TYPE_STRING",
    "cumulative_logprob": "TYPE_FP32",
}

OUR_OUTPUTS = {
    "prompt_token_ids": "TYPE_INT32",  # [P] as the model read them
    "token_ids": "TYPE_INT32",  # [C] as they were sampled
    "logprobs": "TYPE_FP32",  # [C] natural logarithms under the sampling distribution
    # [(P + C - 1) * E] of a mixture of experts: each token's, layer by layer
    "routed_experts": "TYPE_INT32",
    "num_input_tokens": "TYPE_INT32",  # [1]
    "num_cached_tokens": "TYPE_INT32",  # [1] how many of them were found in the prefix cache
    # [1] so far: a chunk that adds no text shows that the call is alive
    "num_output_tokens": "TYPE_INT32",
    "engine_seconds": "TYPE_FP32",  # [1] the call's share of the engine's time
    "model_version": "TYPE_STRING",  # the version that answered
}

VERSION, SETTINGS = "version", "settings"
"""Parameters of a Triton model: which version it serves, and the name of the file with its engine's
settings.
"""

MODEL_FILE = "from proofloop_serving.triton_model import TritonPythonModel\n"
"""All of a model's model.py: the rest comes with the package proofloop-serving, which must be
installed there.
"""


def model_config(version: str, settings: str = "") -> str:
    """The config that a model is loaded with; its inputs and outputs come from
    `auto_complete_config`.
    """
    parameters = {VERSION: version, SETTINGS: settings}
    config = {
        "backend": "python",
        "max_batch_size": 0,
        "model_transaction_policy": {"decoupled": True},
        "instance_group": [
            {"kind": "KIND_CPU"}
        ],  # where the stub runs; the engine inside finds its own GPUs
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    return json.dumps(config)


def triton_name(version: str) -> str:
    """The name of the Triton model that serves a version: side by side, one model a version.

    >>> triton_name("runs/demo/models/verifier/000003")
    'runs.demo.models.verifier.000003'
    """
    return version.replace("/", ".")
