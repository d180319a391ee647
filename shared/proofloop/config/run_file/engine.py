"""[engine] of a run file: where models answer, of all roles or of one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from proofloop.config.section import Section
from proofloop.engine import find_engine
from proofloop.errors import ConfigError
from proofloop.schema.records import MODEL_ROLES, ModelRole
from proofloop.schema.validation import HINT

SECRET = re.compile(
    r"(^|[_-])((?<!cache_)key|secret|password|authorization|(access|auth)[_-]token)$", re.IGNORECASE
)
"""The names of secret engine settings; OpenAI's `prompt_cache_key` is none."""


def endpoint_tables(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The endpoints that have settings of their own; Triton's endpoints are addresses."""
    found = settings.get("endpoints")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _check_no_secret(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a secret in an engine's settings, or in a table inside them."""
    for name in _texts(settings):
        if SECRET.search(name):
            raise ValueError(
                f"settings has the secret {name}, and the store keeps a copy of the run file"
                f"{HINT}remove it, and set PROOFLOOP_OPENAI_API_KEY or PROOFLOOP_TRITON_KEY"
            )


def _texts(value: Any) -> Iterator[str]:
    """The keys of all texts in a table, inner tables and lists included."""
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from (name,) if isinstance(each, str) else _texts(each)


class EngineSection(Section):
    """The engine that runs the models."""

    kind: str = Field(
        "local", description="the engine's name; `proofloop doctor` lists the installed engines"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="the engine's settings, checked by the engine"
    )

    @model_validator(mode="after")
    def _no_secret(self) -> EngineSection:
        _check_no_secret(self.settings)
        return self


class RoleEngine(Section):
    """The engine of one role, where it differs from [engine]."""

    kind: str | None = Field(
        None, description="another engine; it inherits no settings from [engine]"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that replace or extend those of [engine]"
    )

    @model_validator(mode="after")
    def _no_secret(self) -> RoleEngine:
        _check_no_secret(self.settings)
        return self


ADDRESSES = ("base_url", "endpoints")
"""The settings with an engine's address. A role that sets one of them inherits neither."""


class RunEngine(EngineSection):
    """The engine of all roles. The tables of single roles override it."""

    generator: RoleEngine = RoleEngine()
    verifier: RoleEngine = RoleEngine()
    meta_verifier: RoleEngine = RoleEngine()

    def of(self, role: ModelRole) -> EngineSection:
        """The engine of one role."""
        own: RoleEngine = getattr(self, role)
        if own.kind not in (None, self.kind):
            return EngineSection(kind=own.kind, settings=own.settings)
        has_address = any(name in own.settings for name in ADDRESSES)
        shared = {
            name: value
            for name, value in self.settings.items()
            if not has_address or name not in ADDRESSES
        }
        return EngineSection(kind=self.kind, settings={**shared, **own.settings})

    def table_of(self, role: ModelRole) -> str:
        """The table of the file that describes a role's engine."""
        return "engine" if getattr(self, role) == RoleEngine() else f"engine.{role}"

    @property
    def kinds(self) -> str:
        """The engines as text: `openai`, or `openai, verifier triton`."""
        others = [
            f"{role} {self.of(role).kind}"
            for role in MODEL_ROLES
            if self.of(role).kind != self.kind
        ]
        return ", ".join([self.kind, *others])


def needs_model_name(kind: str) -> bool:
    """Whether an engine has no default model."""
    info = find_engine(kind)
    return info is not None and info.needs_model_names


def check_loads_versions(
    engine: EngineSection, trained: str, origin: str, table: str = "engine", *, adapters: bool
) -> None:
    """Raise ConfigError for an engine that cannot serve the versions that training makes.

    `trained`: what trains. `table`: the file's table that describes the engine. `adapters`: the
    versions are adapters.
    """
    info = find_engine(engine.kind)
    if info is None:
        return
    name = engine.settings.get("model") if "model" in info.settings.model_fields else None
    if info.serves_new_versions and not name:
        return
    loads_adapters = bool(engine.settings.get(info.loads_adapters))
    if loads_adapters and adapters:
        return
    setting = (
        f"[{table}.settings] model = {json.dumps(name)}"
        if name
        else f'[{table}] kind = "{engine.kind}"'
    )
    why = "this engine serves the models it was started with, and cannot load trained versions"
    if name:
        why = "with a fixed name, the start model would answer the calls to trained versions"
    ways = (
        'train with an engine that loads versions: kind = "local", or kind = "triton" without'
        " `model`"
    )
    if loads_adapters:
        setting = f"[{table}.settings] {info.loads_adapters} = true"
        why = "this engine serves new versions only if they are adapters"
        ways = f"set [lora]; or {ways}"
    elif info.loads_adapters:
        ways += f"; or train adapters: [lora] and [{table}.settings] {info.loads_adapters} = true"
    raise ConfigError(f"{setting} and {trained} in {origin} do not go together: {why}", ways)
