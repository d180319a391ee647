"""The small scaling benchmark: the chart's rule starts and ends verifier processes on a real broker
and store.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.scale import SMALL, scale

from tests.integration.servers import S3, Broker


@pytest.mark.slow
def test_verifiers_follow_their_queue_and_nothing_is_lost_or_done_twice(
    broker: Broker, s3: S3, tmp_path: Path
) -> None:
    if not broker.api:
        pytest.skip("the broker's management API is not known")
    result = scale(SMALL, broker, s3, tmp_path)
    assert (result.lost, result.duplicates, result.killed) == (0, 0, 0), result
    assert (result.max_workers, result.workers_at_end) == (SMALL.most, 1), result
    # The chart's window, less what had gone of it before.
    assert result.shrink_s > 0.5 * 600 / SMALL.faster, result
    assert result.calls_in_work_at_stop > 0, result
