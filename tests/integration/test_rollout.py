"""The small rollout: a version of the verifier's model comes, goes, and comes back while proofs are
in flight.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from benchmarks.rollout import FIRST, SECOND, SMALL, rollout

from tests.integration.servers import S3, Broker


@pytest.mark.slow
@pytest.mark.timeout(600)  # 278 s on a machine that does much else
def test_a_change_of_one_roles_model_fails_loses_and_mixes_nothing(
    broker: Broker, s3: S3, tmp_path: Path
) -> None:
    result = rollout(SMALL, broker, s3, tmp_path)
    assert (result.failed, result.lost, result.mixed, result.others) == (0, 0, 0, 0), result
    assert set(result.critiques_by_version) == {FIRST, SECOND}, result
    assert min(result.in_flight_at_change) > 0, result
    # By `models rollback`, and by the chart's job once more.
    assert result.served[-2:] == [FIRST, FIRST], result
