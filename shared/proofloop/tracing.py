"""Traces by OpenTelemetry: one trace a proof, a span for each message about it, below it one for each engine call.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set. A proof's trace has the same id in every process, computed from the names
of run and proof: messages carry nothing for it, and a dead letter that is replayed is in the same trace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from proofloop.errors import ConfigError, install_hint

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Where spans go, by HTTP; the other variables of OpenTelemetry's exporter hold as well."""


class Span(Protocol):
    """Makes a span of a proof's trace around a block, below the span that is already around it."""

    def __call__(
        self, name: str, run_id: str, proof_id: str, **attributes: str | int
    ) -> AbstractContextManager[None]: ...


def no_span(name: str, run_id: str, proof_id: str, **attributes: str | int) -> AbstractContextManager[None]:
    """What makes spans where nobody wants any."""
    return nullcontext()


@contextmanager
def tracing(service: str) -> Iterator[Span]:
    """What makes spans while the block runs; they are sent at its end at the latest.

    Raises ConfigError if an endpoint is set and the library is missing.
    """
    if not os.environ.get(ENDPOINT):
        yield no_span
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"{ENDPOINT} is set without OpenTelemetry", install_hint("[tracing]")) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield _spans_of(provider.get_tracer("proofloop"))
    finally:
        provider.shutdown()


def _spans_of(tracer: Tracer) -> Span:
    from opentelemetry.trace import get_current_span

    @contextmanager
    def span(name: str, run_id: str, proof_id: str, **attributes: str | int) -> Iterator[None]:
        has_parent = get_current_span().get_span_context().is_valid
        with tracer.start_as_current_span(name, None if has_parent else _root(run_id, proof_id)) as current:
            current.set_attributes({"proofloop.run": run_id, "proofloop.proof": proof_id, **attributes})
            yield

    return span


def _root(run_id: str, proof_id: str) -> Context:
    """What all spans of a proof stand below; nobody sends it."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    found = blake2b(f"{run_id}/{proof_id}".encode(), digest_size=24).digest()
    ids = int.from_bytes(found[:16], "big"), int.from_bytes(found[16:], "big")
    return set_span_in_context(
        NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    )
