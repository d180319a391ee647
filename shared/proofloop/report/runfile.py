"""Writes a stored run spec as a run file that starts the same run again; secrets are withheld."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w

from proofloop.config.frozen import SECRET, WITHHELD
from proofloop.config.run_file import RunSpec


def run_file(spec: RunSpec) -> str:
    """The spec as TOML. Defaults are written out, because they may change between releases."""
    fields = spec.model_dump(mode="json", exclude={"base"}, exclude_none=True)
    return tomli_w.dumps(_writable(fields))


def _writable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without secrets, without empty tables, and without None, which TOML lacks."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        written = WITHHELD if SECRET.search(name) else _value(value)
        if written is not None and written != {}:
            found[name] = written
    return found


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _writable(value)
    if isinstance(value, list):
        return [_value(each) for each in value]
    return value
