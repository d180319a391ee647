"""Writes a stored run spec as a run.toml that starts the same run again; secrets are withheld."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from proofloop.config.run_file import RunSpec

WITHHELD = "(withheld)"
_SECRET = re.compile(r"(^|_)(key|token|secret|password|authorization|headers)$", re.IGNORECASE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def run_file(spec: RunSpec) -> str:
    """The spec as TOML. Defaults are written out, because they may change between releases."""
    fields = spec.model_dump(mode="json", exclude={"base"}, exclude_none=True)
    return "\n".join(_table(without_secrets(fields), ())).strip() + "\n"


def without_secrets(value: Any, name: str = "") -> Any:
    """A copy of the value in which every field with a secret's name is withheld."""
    if _SECRET.search(name):
        return WITHHELD
    if isinstance(value, Mapping):
        return {key: without_secrets(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return value


def _table(fields: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table: plain values first, then its tables. A table that holds only tables
    gets no heading.
    """
    tables = {name: value for name, value in fields.items() if isinstance(value, Mapping)}
    plain = {
        name: value for name, value in fields.items() if name not in tables and value is not None
    }
    if path and plain:
        yield f"\n[{'.'.join(map(_key, path))}]"
    yield from (f"{_key(name)} = {_value(value)}" for name, value in plain.items())
    for name, value in tables.items():
        yield from _table(value, (*path, name))


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(inner) for inner in value)}]"
    if isinstance(value, Mapping):
        return (
            f"{{ {', '.join(f'{_key(name)} = {_value(inner)}' for name, inner in value.items())} }}"
        )
    return json.dumps(value)


def _text(value: str) -> str:
    """A TOML string. JSON's escapes are valid TOML, except that JSON does not escape the character
    7F.
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
