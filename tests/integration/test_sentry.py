"""Errors as they arrive at a server that speaks Sentry's protocol; and what never leaves with
them.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proofloop.errors import ConfigError
from proofloop.worker.sentry import DSN, start_sentry
from tests.integration.celery_app import make_app, worker
from tests.integration.processes import until
from tests.integration.receiver import receiving
from tests.integration.servers import Broker

PROOF = "Let n be odd. Then n = 2k + 1."


@dataclass
class Sentry:
    """Keeps the envelopes that it is sent: a line of headers, then a line of headers and a line of
    content an item.
    """

    dsn: str
    envelopes: list[bytes]

    def event(self) -> dict[str, Any]:
        (envelope,) = self.envelopes
        event: dict[str, Any] = json.loads(envelope.splitlines()[2])
        return event


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    envelopes: list[bytes] = []
    with receiving(envelopes.append) as address:
        yield Sentry(f"http://key@{address}/1", envelopes)


def test_a_failed_task_is_reported_without_the_text_of_its_proof(
    broker: Broker, sentry: Sentry, tmp_path: Path
) -> None:
    queue, log = f"failing-{uuid.uuid4().hex[:8]}", tmp_path / "worker.log"
    with make_app(broker.url, queue) as sender:
        sender.send_task("ProofReviewed", [PROOF])
    with worker(broker.url, queue, log, SENTRY_DSN=sentry.dsn):
        until(lambda: bool(sentry.envelopes), log)
    event = sentry.event()
    assert [error["type"] for error in event["exception"]["values"]] == [
        "ValueError",
        "RuntimeError",
    ]
    assert event["extra"]["celery-job"]["task_name"] == "ProofReviewed"
    assert (
        event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "proof_reviewed"
    )
    assert PROOF not in json.dumps(event, ensure_ascii=False)
    assert event["release"].startswith("proofloop@")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DSN, "http://key@127.0.0.1:9/1")
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    with pytest.raises(
        ConfigError, match=r"SENTRY_DSN is set without .*\nhint: .*/shared\[sentry\]"
    ):
        start_sentry()


@pytest.mark.parametrize("dsn", [None, ""])
def test_without_a_dsn_the_library_is_not_even_imported(
    dsn: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DSN, raising=False)
    if dsn is not None:
        monkeypatch.setenv(DSN, dsn)
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    start_sentry()
