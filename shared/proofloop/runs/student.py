"""Quantiles of Student's t distribution for 95 % intervals. scipy has them, but it is an extra."""

from __future__ import annotations

from statistics import NormalDist

_FIRST = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
"""The 0.975 quantiles for 1 to 30 degrees of freedom."""


def t95(degrees: int) -> float:
    """The half width of a 95 % interval in standard errors: the 0.975 quantile, within 0.0001.

    From 31 degrees of freedom on it is the normal quantile with the first two terms of its
    expansion (Abramowitz and Stegun 26.7.5). `degrees` is at least 1.
    """
    if degrees <= len(_FIRST):
        return _FIRST[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * degrees)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return z + first + second
