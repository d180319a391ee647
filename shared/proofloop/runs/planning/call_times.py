"""How long the calls of a run take in its engines: the slots of its roles, max_concurrency, and
limits a minute.

The limits of an engine hold for each endpoint, which gets its share of the calls whether it is busy
or not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from proofloop.config.run_file import EngineSection, RunSpec
from proofloop.engine import find_engine
from proofloop.schema.records import MODEL_ROLES, ModelRole

MINUTE_S = 60.0

ACCOUNT = ("base_url", "api_key_env", "requests_per_minute", "tokens_per_minute")
"""Endpoints for which all of these are equal share their limits a minute."""

OfRoles = Mapping[ModelRole, float]


def side_by_side(spec: RunSpec, work: OfRoles) -> list[float]:
    """How long each role's slots, and each engine with all its roles, are busy. `work` in seconds
    of calls.
    """
    engines: dict[str, list[ModelRole]] = {}
    for role in MODEL_ROLES:
        engines.setdefault(spec.engine.of(role).model_dump_json(), []).append(role)
    slots = [work[role] / _slots(spec, role) for role in MODEL_ROLES]
    return slots + [
        sum(work[role] for role in roles) / _at_once(spec.engine.of(roles[0]))
        for roles in engines.values()
    ]


def one_after_another(spec: RunSpec, work: OfRoles) -> float:
    """How long it takes if each role waits for the one before to end."""
    return sum(
        work[role] / min(_slots(spec, role), _at_once(spec.engine.of(role))) for role in MODEL_ROLES
    )


def _slots(spec: RunSpec, role: ModelRole) -> float:
    return float(getattr(spec.flow, role)) * (spec.labeling.m if role == "meta_verifier" else 1)


def _at_once(engine: EngineSection) -> float:
    """The calls that keep its fullest endpoint full."""
    info = find_engine(engine.kind)
    default = info.max_concurrency if info else math.inf
    return min(
        _limit(settings, "max_concurrency", default) / share
        for settings, share in _endpoints(engine)
    )


def _endpoints(engine: EngineSection) -> list[tuple[dict[str, Any], float]]:
    """The settings of each and its share of the calls; of an engine without endpoint tables its
    own, and 1.
    """
    found = engine.settings.get("endpoints")
    tables = (
        [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    )
    weights = [_limit(table, "weight", 1.0) for table in tables]
    shares = [weight / sum(weights) for weight in weights]
    each = [
        ({**engine.settings, **table}, share) for table, share in zip(tables, shares, strict=True)
    ]
    return each or [(engine.settings, 1.0)]


def _limit(settings: Mapping[str, Any], name: str, default: float = math.inf) -> float:
    value = settings.get(name)
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else default


def braked(spec: RunSpec, calls: OfRoles, prompt: OfRoles, answer: OfRoles) -> list[float]:
    """How long requests and tokens a minute make it take, by account."""
    used: dict[tuple[str, str, float], float] = defaultdict(float)
    for role in MODEL_ROLES:
        for settings, share in _endpoints(spec.engine.of(role)):
            account = repr([settings.get(name) for name in ACCOUNT])
            uses = {
                "requests_per_minute": calls[role],
                "tokens_per_minute": prompt[role] + answer[role],
            }
            for name, number in uses.items():
                used[account, name, _limit(settings, name)] += share * number
    return [0.0, *(number / limit * MINUTE_S for (*_, limit), number in used.items())]
