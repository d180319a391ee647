"""The small chaos benchmark: real processes, a real broker and store, all of them killed or away
for a while.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.chaos import SMALL, chaos

from tests.integration.servers import S3, Broker


@pytest.mark.slow
def test_every_proof_is_labeled_once_though_workers_broker_and_store_are_killed(
    broker: Broker, s3: S3, tmp_path: Path
) -> None:
    if broker.kill is None or s3.kill is None:
        pytest.skip("the broker or the store is not ours to kill")
    result = chaos(SMALL, broker, s3, tmp_path)
    assert (result.labeled, result.lost, result.duplicates, result.stuck) == (
        SMALL.proofs,
        0,
        0,
        0,
    ), result
    assert (result.broker_restarts, result.connection_cuts, result.store_absences) == (
        1,
        1,
        1,
    ) and result.kills >= 8, result
    assert result.paid and result.paid.answers_asked_again == 0, result
