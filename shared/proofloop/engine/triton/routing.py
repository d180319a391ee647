"""Which replica answers: rendezvous hashing with bounded load.

Calls of one affinity go to one replica, where their common prompt is in the cache, unless it has
more than its share.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping


def pick(affinity: str, load: Mapping[str, int], factor: float) -> str:
    """One of the replicas in `load` (running calls by address): the first in the affinity's order
    that has room.

    Room is what `factor` (at least 1) times the mean load leaves, so there always is some.
    """
    limit = math.ceil(factor * (sum(load.values()) + 1) / len(load))
    order = sorted(load, key=lambda address: _weight(affinity, address), reverse=True)
    return next(address for address in order if load[address] < limit)


def _weight(affinity: str, address: str) -> bytes:
    return hashlib.blake2b(f"{affinity}\n{address}".encode(), digest_size=8).digest()
