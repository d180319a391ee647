"""The small load benchmark: four verifier processes that are full, with more queued, on a real
broker and store.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.load import FULL, PROCESSES, SMALL, load

from tests.integration.servers import S3, Broker


@pytest.mark.slow
def test_full_verifiers_lose_no_consumer_and_leave_the_short_roles_alone(
    broker: Broker, s3: S3, tmp_path: Path
) -> None:
    if not broker.api:
        pytest.skip("the broker's management API is not known")
    result = load(SMALL, broker, s3, tmp_path)
    places = PROCESSES * SMALL.concurrency
    assert FULL * places <= result.in_flight_max <= places, result
    assert result.queued_max > 0 and result.handled > 0, result
    assert (result.consumers_lost, result.messages_failed) == (0, 0), result
    assert result.short_messages > 0 and result.short_wait_p99_s <= 10, result
    assert result.memory_mb_end < 1.2 * result.memory_mb_full, result
