"""Chooses the replica for a call: rendezvous hashing with bounded loads.

Calls with one affinity go to one replica, which has their common prompt in its KV cache, unless
that replica has more than its share of the calls.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping


def pick_replica(affinity: str, load: Mapping[str, int], factor: float) -> str:
    """The first replica in the affinity's order whose load is below the limit. `load` holds the
    running calls by address.

    The limit is `factor` (at least 1) times the mean load, so that one replica always has room.
    """
    limit = math.ceil(factor * (sum(load.values()) + 1) / len(load))
    order = sorted(load, key=lambda address: _weight(affinity, address), reverse=True)
    return next(address for address in order if load[address] < limit)


def _weight(affinity: str, address: str) -> bytes:
    return hashlib.blake2b(f"{affinity}\n{address}".encode(), digest_size=8).digest()
