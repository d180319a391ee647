"""The time of a run's calls in its engines: the slots of its roles, max_concurrency, and limits a
minute.

The limits of an engine hold for each endpoint, which gets its share of the calls whether it is busy
or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from proofloop.config.run_file import RunSpec
from proofloop.runs.flow import (
    calls_at_once,
    endpoint_settings,
    in_work,
    roles_by_engine,
    setting_limit,
)
from proofloop.schema.records import MODEL_ROLES, ModelRole

MINUTE_S = 60.0

ACCOUNT = ("base_url", "api_key_env", "requests_per_minute", "tokens_per_minute")
"""Endpoints for which all of these are equal share their limits a minute."""

OfRoles = Mapping[ModelRole, float]


def side_by_side(spec: RunSpec, work: OfRoles) -> list[float]:
    """The busy time of each role's slots, and of each engine with all its roles. `work` in seconds
    of calls.
    """
    slots = [work[role] / _slots(spec, role) for role in MODEL_ROLES]
    return slots + [
        sum(work[role] for role in roles) / calls_at_once(spec.engine.of(roles[0]))
        for roles in roles_by_engine(spec)
    ]


def one_after_another(spec: RunSpec, work: OfRoles) -> float:
    """The time if each role waits for the end of the one before."""
    return sum(
        work[role] / min(_slots(spec, role), calls_at_once(spec.engine.of(role)))
        for role in MODEL_ROLES
    )


def _slots(spec: RunSpec, role: ModelRole) -> float:
    return float(in_work(spec, role)) * (max(1, spec.labeling.m) if role == "meta_verifier" else 1)


def rate_limited(spec: RunSpec, calls: OfRoles, prompt: OfRoles, answer: OfRoles) -> list[float]:
    """The seconds that the rate limits of requests and tokens take, by account."""
    used: dict[tuple[str, str, float], float] = defaultdict(float)
    for role in MODEL_ROLES:
        for settings, share in endpoint_settings(spec.engine.of(role)):
            account = repr([settings.get(name) for name in ACCOUNT])
            uses = {
                "requests_per_minute": calls[role],
                "tokens_per_minute": prompt[role] + answer[role],
            }
            for name, number in uses.items():
                used[account, name, setting_limit(settings, name)] += share * number
    return [0.0, *(number / limit * MINUTE_S for (*_, limit), number in used.items())]
