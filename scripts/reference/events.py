"""The events on the bus and their fields, from their classes."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel
from scripts.reference.tables import about, default, table

from proofloop.schema.events import EVENTS, MAX_BODY_BYTES, ParentProof


def sections() -> list[str]:
    parts = [_section(name, event) for name, event in EVENTS.items()]
    return [
        f"A body has at most {MAX_BODY_BYTES // 1024} KiB.",
        *parts,
        _section("ParentProof", ParentProof),
    ]


def _section(name: str, kind: type[BaseModel]) -> str:
    rows = [
        (f"`{field_name}`", _type(field.annotation), default(field))
        for field_name, field in kind.model_fields.items()
    ]
    return "\n\n".join([f"## {name}", about(kind), table(("field", "type", "default"), rows)])


def _type(annotation: Any) -> str:
    """A type as people write it: `str`, `int`, a choice of texts."""
    inner = get_args(annotation)
    if inner and all(isinstance(choice, str | float | int) for choice in inner):
        return ", ".join(f"`{choice}`" for choice in inner)
    if inner:
        return " or ".join(_type(one) for one in inner if one is not Ellipsis)
    return getattr(annotation, "__name__", str(annotation)).replace("NoneType", "none")
