"""Markdown tables of pydantic models: one row for each field."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def about(kind: type) -> str:
    """The docstring of a class as Markdown paragraphs."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(kind.__doc__ or ""))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def keys_table(
    kind: type[BaseModel],
    *,
    defaults: Mapping[str, str] | None = None,
    leave_out: Iterable[str] = (),
    changeable: Collection[str] | None = None,
) -> str:
    """The fields of a model that are no sections.

    `defaults` replaces defaults that depend on another key. With `changeable` a column says whether
    a resumed run may change the key.
    """
    left_out = {"base", *leave_out}
    resume = () if changeable is None else ("on resume",)
    return table(
        ("key", "default", "bounds", *resume, "meaning"),
        [
            (
                f"`{name}`",
                (defaults or {}).get(name) or default(field),
                ", ".join(bounds(field)),
                *("may change" if name in (changeable or ()) else "frozen" for _ in resume),
                field.description or "",
            )
            for name, field in kind.model_fields.items()
            if name not in left_out and not section_class(field)
        ],
    )


def section_class(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a field that is a table of a TOML file."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next(
        (kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel)), None
    )


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None and field.default_factory_takes_validated_data:
        return "depends on the problems"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, SecretStr):
        return "unset"
    if isinstance(value, frozenset):
        value = sorted(value)
    return f"`{json.dumps(value, default=str)}`"


def bounds(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        yield from (
            f"{sign} {getattr(limit, name)}" for name, sign in SIGNS.items() if hasattr(limit, name)
        )
        if hasattr(limit, "min_length"):
            yield f"at least {limit.min_length}"
    yield from (f"`{json.dumps(choice)}`" for choice in _choices(field.annotation))


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next(filter(None, map(_choices, get_args(annotation))), ())
