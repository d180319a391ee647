"""An engine's settings: their base class, which of them a resumed run may change, and how they are
read from a run file's `[engine.settings]`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from proofloop.errors import ConfigError
from proofloop.schema.validation import InvalidValue, problem_of


class EngineSettings(BaseModel):
    """The base of each engine's settings. Errors never repeat a value, which may be a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Changeable:
    """Marks a setting that decides no answer."""


T = TypeVar("T")
Settings = TypeVar("Settings", bound=EngineSettings)

MayChange = Annotated[T, _Changeable()]
"""The type of a setting that a resumed run may change, as in `max_attempts: MayChange[int] = 5`.

It says where the engine is, how proofloop reaches it, or how much memory it uses. A run keeps all
other settings.
"""


def changeable_fields(settings_type: type[EngineSettings]) -> frozenset[str]:
    """The names of the settings marked `MayChange`."""
    return frozenset(
        name
        for name, field in settings_type.model_fields.items()
        if any(isinstance(mark, _Changeable) for mark in field.metadata)
    )


MOST_DOUBLINGS = 32
"""A limit for the exponent: a server may be unavailable for days, and 2.0 ** attempt overflows."""


def exponential_backoff_s(
    attempt: int, chance: float, *, first_s: float, longest_s: float
) -> float:
    """The wait after this many attempts, with jitter: `chance` in [0, 1) moves it between half and
    all of the backoff.
    """
    longest = min(longest_s, first_s * 2.0 ** min(attempt - 1, MOST_DOUBLINGS))
    return longest * (1 + chance) / 2


def read_settings(
    settings_type: type[Settings],
    values: Mapping[str, object],
    kind: str,
    *,
    also: Collection[str] = (),
) -> Settings:
    """Check the settings. Raises ConfigError, which repeats no secret. `also` names further known
    keys.
    """
    try:
        return settings_type.model_validate(dict(values))
    except ValidationError as error:
        found = [problem_of(details) for details in error.errors()]
        problems = [_described(settings_type, values, problem) for problem in found]
    is_about_keys = any("key" in problem.partition('"')[0] for problem in problems)
    known = ", ".join([*settings_type.model_fields, *also])
    hint = f"known keys: {known}" if is_about_keys else f"{_manual(settings_type)} its settings"
    raise ConfigError(f"[engine] {kind}: {'; '.join(problems)}", hint)


def _manual(settings_type: type[BaseModel]) -> str:
    """The documentation of an engine's settings: our page, or the engine's package."""
    package = settings_type.__module__.partition(".")[0]
    if package == __name__.partition(".")[0]:
        return "docs/reference/engines.md explains"
    return f"see the package {package} for"


def _described(
    settings_type: type[BaseModel], values: Mapping[str, object], problem: InvalidValue
) -> str:
    key = problem.path[0].partition("[")[0]
    path = ".".join(problem.path)
    if problem.kind == "extra_forbidden":
        return f'unknown key "{path}"{_closest(settings_type, key)}'
    if problem.kind == "missing":
        return f'missing key "{path}"'
    return f"{path}{_shown(settings_type, key, values)}: {problem.text}"


def _closest(settings_type: type[BaseModel], key: str) -> str:
    found = difflib.get_close_matches(key, settings_type.model_fields, n=1)
    return f' (did you mean "{found[0]}"?)' if found else ""


def _shown(settings_type: type[BaseModel], key: str, values: Mapping[str, object]) -> str:
    """The value, unless it may be a secret, or an address that contains one."""
    field = settings_type.model_fields[key]
    is_secret = (
        SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ())) or "key" in key
    )
    return "" if is_secret or "@" in str(values[key]) else f" = {values[key]!r}"
