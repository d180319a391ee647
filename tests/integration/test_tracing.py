"""Spans as they arrive at a real OTLP endpoint over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proofloop.bus import ACK, Delivery, LocalBus
from proofloop.bus.tracing import ENDPOINT, no_span, traceparent, tracing
from proofloop.schema.events import ProblemPosed, ProofWritten, encode
from proofloop.worker.roles import load_role
from proofloop.worker.runtime import Worker
from tests.builders import PROOF, RUN, CountingEngine, runspec, workplace
from tests.integration.celery_app import make_app, worker
from tests.integration.processes import until
from tests.integration.receiver import receiving
from tests.integration.servers import Broker


class Collector:
    """Keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    running = Collector()
    with receiving(running.take) as address:
        monkeypatch.setenv(ENDPOINT, f"http://{address}")
        yield running


def test_all_messages_of_a_proof_are_in_one_trace_with_its_engine_calls_below(
    tmp_path: Path, collector: Collector
) -> None:
    tools = workplace(tmp_path, CountingEngine(malformed_share=0), runspec())
    events = (
        ("generator", ProblemPosed(run_id=RUN, problem_id="p1", proof_id=PROOF, group="p1")),
        ("verifier", ProofWritten(run_id=RUN, proof_id=PROOF, index=0, verifier_version="m-1")),
    )
    for role, event in events:  # two services: neither knows of the other's spans
        with tracing(role) as tools.span:
            bus = LocalBus()
            assert Worker(load_role(role), bus, tools).process(Delivery(encode(event))) == ACK
            bus.close()
    by_name = {span.name: span for span in collector.spans}
    assert list(by_name) == ["engine generator", "ProblemPosed", "engine verifier", "ProofWritten"]
    assert len({span.trace_id for span in collector.spans}) == 1
    assert by_name["engine verifier"].parent_span_id == by_name["ProofWritten"].span_id
    assert by_name["ProblemPosed"].parent_span_id == by_name["ProofWritten"].parent_span_id
    attributes = {pair.key: pair.value.string_value for pair in by_name["ProofWritten"].attributes}
    assert (attributes["proofloop.run"], attributes["proofloop.proof"]) == (RUN, PROOF)


def test_celerys_span_of_a_task_is_in_the_trace_of_its_proof_and_above_our_spans(
    broker: Broker, collector: Collector, tmp_path: Path
) -> None:
    queue, log = f"traced-{uuid.uuid4().hex[:8]}", tmp_path / "worker.log"
    with make_app(broker.url, queue) as sender:
        sender.send_task(
            "ProofWritten", [RUN, PROOF], headers={"traceparent": traceparent(RUN, PROOF)}
        )
    with worker(broker.url, queue, log, OTEL_BSP_SCHEDULE_DELAY="100"):
        until(lambda: len(collector.spans) == 2, log)
    by_name = {span.name: span for span in collector.spans}
    ours, celerys = by_name["engine verifier"], by_name["run/ProofWritten"]
    assert ours.parent_span_id == celerys.span_id
    parent = f"00-{celerys.trace_id.hex()}-{celerys.parent_span_id.hex()}-01"
    assert parent == traceparent(RUN, PROOF)
    assert ours.trace_id == celerys.trace_id


def test_a_message_carries_the_trace_that_spans_without_celery_are_in(collector: Collector) -> None:
    with tracing("verifier") as span, span("ProofWritten", RUN, PROOF):
        pass
    (sent,) = collector.spans
    assert traceparent(RUN, PROOF) == f"00-{sent.trace_id.hex()}-{sent.parent_span_id.hex()}-01"


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    with tracing("verifier") as span:
        assert span is no_span
