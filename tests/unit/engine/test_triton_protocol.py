"""The engine's part of Triton's protocol is a part of NVIDIA's."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

pytest.importorskip("tritonclient", reason="tritonclient is not installed")

from tritonclient.grpc import model_config_pb2, service_pb2

from proofloop.engine.triton.protocol import TritonStub, messages

OURS: dict[str, Descriptor] = messages.DESCRIPTOR.message_types_by_name
NVIDIAS: dict[str, Descriptor] = {
    **model_config_pb2.DESCRIPTOR.message_types_by_name,
    **service_pb2.DESCRIPTOR.message_types_by_name,
}


@pytest.mark.parametrize("name", OURS)
def test_every_field_has_nvidias_number_and_type(name: str) -> None:
    assert fields(OURS[name]).items() <= fields(NVIDIAS[name]).items()


def test_every_call_is_one_of_nvidias_with_its_answer() -> None:
    channel = Channel()
    TritonStub(channel)
    (service,) = service_pb2.DESCRIPTOR.services_by_name.values()
    nvidias = {
        (f"/{service.full_name}/{call.name}", call.client_streaming, call.output_type.name)
        for call in service.methods
    }
    assert len(channel.calls) == 6 and channel.calls <= nvidias


class Channel:
    """Notes the calls that a stub makes of it."""

    def __init__(self) -> None:
        self.calls: set[tuple[str, bool, str]] = set()

    def unary_unary(self, method, request_serializer, response_deserializer, streamed=False):
        answer = type(response_deserializer(b""))
        self.calls.add((method, streamed, answer.DESCRIPTOR.name))

    def stream_stream(self, method, request_serializer, response_deserializer):
        self.unary_unary(method, request_serializer, response_deserializer, streamed=True)


def fields(message: Descriptor, prefix: str = "") -> dict[str, tuple[int, int, bool]]:
    """Number, type and repetition of each field, those of inner messages too."""
    found = {prefix + field.name: shape(field) for field in message.fields}
    for inner in message.nested_types:
        found |= fields(inner, f"{prefix}{inner.name}.")
    return found


def shape(field: FieldDescriptor) -> tuple[int, int, bool]:
    return field.number, field.type, field.is_repeated
