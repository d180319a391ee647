"""Triton's gRPC protocol: the messages of triton.proto, and the calls that the engine makes.

NVIDIA's tritonclient has both, and needs 90 MB of libraries that the engine does not use.
"""

from __future__ import annotations

from typing import Any

import grpc

from proofloop.engine.triton.protocol import triton_pb2 as messages

__all__ = ["TritonStub", "messages"]


class TritonStub:
    """The calls over a channel, by Triton's names."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.ModelReady = channel.unary_unary(**_call("ModelReady"))
        self.ModelConfig = channel.unary_unary(**_call("ModelConfig"))
        self.ModelStatistics = channel.unary_unary(**_call("ModelStatistics"))
        self.RepositoryModelLoad = channel.unary_unary(**_call("RepositoryModelLoad"))
        self.RepositoryModelUnload = channel.unary_unary(**_call("RepositoryModelUnload"))
        self.ModelStreamInfer = channel.stream_stream(
            **_call("ModelStreamInfer", request=messages.ModelInferRequest)
        )


def _call(name: str, request: Any = None) -> dict[str, Any]:
    """The path of a call, and how its messages are written and read."""
    sent = request or getattr(messages, f"{name}Request")
    return {
        "method": f"/inference.GRPCInferenceService/{name}",
        "request_serializer": sent.SerializeToString,
        "response_deserializer": getattr(messages, f"{name}Response").FromString,
    }
