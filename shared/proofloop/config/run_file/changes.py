"""Which settings of a run decide its answers, and which a resumed run may change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from proofloop.config.frozen import Difference, differences
from proofloop.config.run_file.engine import endpoint_tables
from proofloop.config.run_file.spec import RunSpec
from proofloop.engine import find_engine
from proofloop.method.prompts import load_pack
from proofloop.schema.records import MODEL_ROLES, ModelRole

SECTIONS_THAT_MOVE = ("flow", "prices", "budget")
FILES = (
    ("base",),
    ("problems", "file"),
    ("problems", "given_proofs"),
    ("problems", "given_analyses"),
    ("fine_tuning", "demonstrations"),
)
GROWING = (("problems", "count"), ("problems", "proofs_per_problem"))

ENGINE_TABLES = ("settings", *MODEL_ROLES)


def what_decides(spec: RunSpec) -> str:
    """The settings that decide a run's answers, apart from its name and the questions: equal if the
    answers are equal. Raises ConfigError for an invalid prompt pack.
    """
    all_set = (
        each
        for each in differences(spec, None)
        if each.path != ("name",) and not is_engine_setting(each)
    )
    decisive = [str(each) for each in all_set if not is_free(each, spec) or each.path in GROWING]
    prompts = load_pack(spec.prompts, spec.base).model_dump_json()
    return "\n".join(
        [*decisive, *(str(engine_decides(spec, role)) for role in MODEL_ROLES), prompts]
    )


def is_free(change: Difference, spec: RunSpec) -> bool:
    """Whether a resumed run may have this change. Endpoints may change, but not the settings of an
    endpoint that decide answers.
    """
    if change.path[0] == "engine" and change.path[-1] == "endpoints":
        kind = _engine_of(spec, change.path)
        return _decisive_settings(kind, change.now) == _decisive_settings(kind, change.before)
    return may_change(change.path, spec)


def _engine_of(spec: RunSpec, path: tuple[str, ...]) -> str:
    """The engine whose table holds this key."""
    role = next((role for role in MODEL_ROLES if role == path[1]), None)
    return spec.engine.of(role).kind if role else spec.engine.kind


def _changeable(kind: str) -> frozenset[str]:
    """The settings that a resumed run may change; none of an engine that is not installed."""
    info = find_engine(kind)
    return info.changeable if info else frozenset()


def _decisive_settings(kind: str, endpoints: Any) -> list[str]:
    """The settings of each endpoint that decide answers, as JSON. Without endpoints there is one
    without settings.
    """
    tables = endpoints if isinstance(endpoints, list) and endpoints else [None]
    return sorted({_decisive(kind, table) for table in tables})


def _decisive(kind: str, table: Any) -> str:
    own = table if isinstance(table, Mapping) else {}  # Triton's endpoints are addresses
    free = _changeable(kind) | {"endpoints", "weight"}
    return json.dumps({name: own[name] for name in sorted(own) if name not in free})


def engine_decides(spec: RunSpec, role: ModelRole) -> list[str]:
    """The settings that decide a role's answers, at each of its endpoints."""
    engine = spec.engine.of(role)
    tables = endpoint_tables(engine.settings) or [{}]
    return _decisive_settings(engine.kind, [{**engine.settings, **own} for own in tables])


def is_engine_setting(change: Difference) -> bool:
    return change.path[0] == "engine" and "settings" in change.path[1:3]


def may_change(path: tuple[str, ...], spec: RunSpec) -> bool:
    """Whether a resumed run may have another value of this key. `check_run` checks that
    [problems] only grows.
    """
    match path:
        case ("base",) | ("problems", _):
            return path in FILES or path in GROWING
        case ("training", _, "settings", "tokens_per_pass"):
            return True
        case ("fine_tuning", name):
            return path in FILES or name == "tokens_per_pass"
        case ("engine", *names):
            setting = next((name for name in names if name not in ENGINE_TABLES), "")
            return setting in _changeable(_engine_of(spec, path))
        case (section, *_):
            return section in SECTIONS_THAT_MOVE
    return False
