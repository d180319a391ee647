"""The number of a role's messages in work at once, in a run on this machine: that of `[flow]`, or
as many as keep the role's engine full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from proofloop.config.run_file import EngineSection, RunSpec, endpoint_tables
from proofloop.engine import find_engine
from proofloop.schema.records import MODEL_ROLES, ModelRole

DEFAULT: dict[str, int] = {
    "generator": 32,
    "verifier": 64,
    "meta_verifier": 64,
    "labeler": 2,
    "trainer": 1,
}
"""Of a service, and of a role whose engine has no limit."""

UNFILLED_HINT = "delete these keys of [flow]: without them the engine is kept full"
"""The way out of what `unfilled` finds."""

MOST = 4096
"""Each message in work holds a thread."""


def in_work(spec: RunSpec, role: str) -> int:
    """Messages of the role at once."""
    given: int | None = getattr(spec.flow, role, None)
    if given is not None:
        return given
    if role not in MODEL_ROLES:
        return DEFAULT[role]
    slots = calls_at_once(spec.engine.of(role))
    return DEFAULT[role] if math.isinf(slots) else min(MOST, max(1, round(slots)))


def most_waiting_proofs(spec: RunSpec) -> int:
    """The most proofs that are posed and have no label yet: enough for twice the generator's
    messages.
    """
    given = spec.flow.max_waiting_proofs
    return given if given is not None else max(256, 2 * in_work(spec, "generator"))


SPARE = 1.25
"""Critiques in flight for each that is running: the others wait, so that no slot is idle until the
run hears of an answer.
"""


def critiques_at_once(spec: RunSpec, running: int) -> int:
    """The most critiques that searches have in flight: enough for the verifier's messages in this
    process, or for the `running` ones of several services.
    """
    return math.ceil(SPARE * max(in_work(spec, "verifier"), running))


def unfilled(spec: RunSpec) -> list[str]:
    """A line for each engine that `[flow]` cannot keep full: more of its slots are free than used
    even if all its roles are as busy as they may be.
    """
    found = []
    for roles in roles_by_engine(spec):
        slots = calls_at_once(spec.engine.of(roles[0]))
        calls = sum(_calls(spec, role) for role in roles)
        if not math.isinf(slots) and 2 * calls <= slots:
            limits = ", ".join(f"{role} = {in_work(spec, role)}" for role in roles)
            found.append(
                f"[flow] {limits} allows {calls} calls at once, but the engine takes {slots:.0f}"
            )
    return found


def _calls(spec: RunSpec, role: ModelRole) -> int:
    return in_work(spec, role) * (spec.labeling.most_metas if role == "meta_verifier" else 1)


def roles_by_engine(spec: RunSpec) -> list[list[ModelRole]]:
    """The roles of each engine of the run."""
    engines: dict[str, list[ModelRole]] = {}
    for role in spec.asked_roles:
        engines.setdefault(spec.engine.of(role).model_dump_json(), []).append(role)
    return list(engines.values())


def calls_at_once(engine: EngineSection) -> float:
    """The calls that keep the engine's fullest endpoint full; infinity for an engine without a
    limit.
    """
    info = find_engine(engine.kind)
    default = info.max_concurrency if info else math.inf
    return min(
        setting_limit(settings, "max_concurrency", default) / share
        for settings, share in endpoint_settings(engine)
    )


def endpoint_settings(engine: EngineSection) -> list[tuple[dict[str, Any], float]]:
    """The settings of each endpoint and its share of the calls. An engine without endpoint tables
    is its only endpoint.
    """
    tables = endpoint_tables(engine.settings)
    weights = [setting_limit(table, "weight", 1.0) for table in tables]
    shares = [weight / sum(weights) for weight in weights]
    each = [
        ({**engine.settings, **table}, share) for table, share in zip(tables, shares, strict=True)
    ]
    return each or [(engine.settings, 1.0)]


def setting_limit(settings: Mapping[str, Any], name: str, default: float = math.inf) -> float:
    value = settings.get(name)
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else default
