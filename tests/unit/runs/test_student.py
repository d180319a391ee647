"""Quantiles of Student's t distribution."""

from __future__ import annotations

import pytest
from scipy.stats import t  # type: ignore[import-untyped]

from proofloop.runs.student import t95


@pytest.mark.parametrize("degrees", [*range(1, 40), 100, 10_000])
def test_the_quantile_is_scipys(degrees: int) -> None:
    assert t95(degrees) == pytest.approx(t.ppf(0.975, degrees), abs=1e-4)
