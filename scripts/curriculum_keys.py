"""Generates docs/curriculum-keys.md, the reference of a curriculum file's keys, from the classes
that check it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop_trainer.grpo.settings import GrpoSettings

PAGE = Path(__file__).parents[1] / "docs" / "curriculum-keys.md"
HEAD = """\
# The keys of a curriculum's file

Made by `python scripts/curriculum_keys.py` from the classes that check the file; change those.
What the stages do with them: [training.md](training.md). A key that is left out has its default,
and one that is not here is refused. A whole file:
[examples/nano-iterate](../examples/nano-iterate/curriculum.toml).
"""
SETTINGS = "`settings` of `[verifier]`, `[meta_verifier]`, `[enhanced]`, `[generator]`"
ELSEWHERE = {
    ("Top level", "name"): "the file's name without `.toml`",
    ("Top level", "prompts"): "the problems' pack",
    (SETTINGS, "decay_steps"): "the stage's `steps`",
    (SETTINGS, "temperature"): "the temperature in `[sampling]`",
    (SETTINGS, "seed"): "the curriculum's seed",
}
"""Defaults that depend on other keys."""
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def main() -> None:
    PAGE.write_text(page(), "utf-8")


def page() -> str:
    """The text of the page."""
    sections = {
        "Top level": CurriculumSpec,
        **_sections(CurriculumSpec, ""),
        SETTINGS: GrpoSettings,
    }
    return "\n".join([HEAD, *(_table(title, kind) for title, kind in sections.items())])


def _sections(kind: type[BaseModel], prefix: str) -> dict[str, type[BaseModel]]:
    """The TOML tables below a class, by title. Tables with the same class share one title."""
    found: dict[type[BaseModel], list[str]] = {}
    for name, field in kind.model_fields.items():
        if inner := _section(field):
            found.setdefault(inner, []).append(f"{prefix}{name}")
    titles: dict[str, type[BaseModel]] = {}
    for inner, names in found.items():
        if any(not _section(field) for field in inner.model_fields.values()):
            titles[", ".join(f"`[{name}]`" for name in names)] = inner
        titles |= _sections(inner, f"{names[0]}.")
    return titles


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next(
        (kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel)), None
    )


def _table(title: str, kind: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_default(title, name, field)} | {', '.join(_bounds(field))} |"
        f" {field.description} |"
        for name, field in kind.model_fields.items()
        if name != "base" and not _section(field)
    ]
    about = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    return "\n".join(
        [
            f"## {title}",
            about,
            "",
            "| key | default | bounds | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(title: str, name: str, field: FieldInfo) -> str:
    if (title, name) in ELSEWHERE:
        return ELSEWHERE[title, name]
    if field.is_required():
        return "must be given"
    default = field.get_default(call_default_factory=True)
    return "unset" if default is None else f"`{json.dumps(default)}`"


def _bounds(field: FieldInfo) -> Iterator[str]:
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


if __name__ == "__main__":
    main()
