"""OpenTelemetry traces: one trace per proof, with a span per message and child spans per model
call.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set. A proof's trace id is computed from the ids of run
and proof: it is the same in every process, and a replayed dead letter joins the same trace.
Messages carry the id as `traceparent`, which puts the task spans of Celery's instrumentation above
proofloop's spans.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from proofloop.errors import library

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The HTTP address that receives spans. The exporter's other standard variables work too."""


class Span(Protocol):
    """Opens a span in a proof's trace for a block of code, as a child of the current span."""

    def __call__(
        self, name: str, run_id: str, proof_id: str, **attributes: str | int
    ) -> AbstractContextManager[None]: ...


def no_span(
    name: str, run_id: str, proof_id: str, **attributes: str | int
) -> AbstractContextManager[None]:
    """The `Span` used when tracing is off: it does nothing."""
    return nullcontext()


@lru_cache(maxsize=1024)  # a proof has many messages in a row
def traceparent(run_id: str, proof_id: str) -> str:
    """The W3C header `traceparent` of a message about this proof, with the flag "sampled"."""
    trace, parent = _ids(run_id, proof_id)
    return f"00-{trace:032x}-{parent:016x}-01"


@contextmanager
def tracing(service: str) -> Iterator[Span]:
    """Trace while the block runs, Celery's tasks included. The last spans are sent when the block
    ends.

    In a Celery worker, enter the block before the worker consumes. Raises ConfigError if an
    endpoint is set but the library is missing.
    """
    if not os.environ.get(ENDPOINT):
        yield no_span
        return
    with library(f"{ENDPOINT} is set but OpenTelemetry is missing", "[tracing]"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        with _celery_spans(provider):
            yield _spans_of(provider.get_tracer("proofloop"))
    finally:
        provider.shutdown()


@contextmanager
def _celery_spans(provider: TracerProvider) -> Iterator[None]:
    """Open a span for each Celery task while the block runs; does nothing in a process without
    Celery.
    """
    if "celery" not in sys.modules:
        yield
        return
    with library(
        f"{ENDPOINT} is set but OpenTelemetry's instrumentation of Celery is missing", "[tracing]"
    ):
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
    instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
    instrumentor.instrument(tracer_provider=provider)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def _spans_of(tracer: Tracer) -> Span:
    from opentelemetry.trace import get_current_span

    @contextmanager
    def span(name: str, run_id: str, proof_id: str, **attributes: str | int) -> Iterator[None]:
        has_parent = get_current_span().get_span_context().is_valid
        with tracer.start_as_current_span(
            name, None if has_parent else _root(run_id, proof_id)
        ) as current:
            current.set_attributes(
                {"proofloop.run": run_id, "proofloop.proof": proof_id, **attributes}
            )
            yield

    return span


def _root(run_id: str, proof_id: str) -> Context:
    """The parent of a proof's topmost spans. It exists only as an id; no process sends it."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    trace, parent = _ids(run_id, proof_id)
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(trace, parent, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        )
    )


def _ids(run_id: str, proof_id: str) -> tuple[int, int]:
    """The ids of a proof's trace and of the parent of its topmost spans."""
    found = blake2b(f"{run_id}/{proof_id}".encode(), digest_size=24).digest()
    return int.from_bytes(found[:16], "big"), int.from_bytes(found[16:], "big")
