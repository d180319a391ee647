"""Explains errors in a TOML file: the key as the file writes it, its value, and the way out."""

from __future__ import annotations

from inspect import isclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from proofloop.errors import ConfigError
from proofloop.schema.validation import InvalidValue, first_problem

BACKSLASHES = (
    "write a path with / or in single quotes: in TOML's double quotes, \\ begins an escape"
)
EXAMPLES = "`proofloop init` writes a run file that works; examples/ has curricula"


def explain(error: ValidationError, origin: str, root: type[BaseModel]) -> ConfigError:
    """The error for the first problem, such as `[labeling] k = 9 in run.toml: ...`."""
    problem = first_problem(error)
    if not problem.path:
        return ConfigError(f"{problem.text} (in {origin})", problem.hint or EXAMPLES)
    place = key_in_file(problem.path)
    if problem.kind == "extra_forbidden":
        return ConfigError(f"unknown key {place} in {origin}", _keys_hint(problem.path[:-1], root))
    if problem.kind == "missing":
        return ConfigError(f"{place} is missing in {origin}", EXAMPLES)
    if problem.kind == "value_error" and _is_section(problem.path, root):
        place = f"[{'.'.join(problem.path)}]"  # keys of one section contradict each other
    return ConfigError(
        f"{place}{problem.shown} in {origin}: {_text(problem)}",
        problem.hint or _quotes_hint(problem),
    )


def key_in_file(path: tuple[str, ...]) -> str:
    """A key as a TOML file writes it: `[labeling] k`."""
    *sections, key = path
    return f"[{'.'.join(sections)}] {key}" if sections else key


def known_keys(section: type[BaseModel]) -> str:
    """The keys of a section for an error. `base` is set by the reader, not by the file."""
    return ", ".join(sorted(section.model_fields.keys() - {"base"}))


def _keys_hint(sections: tuple[str, ...], root: type[BaseModel]) -> str:
    section = _section(sections, root)
    hint = f"known keys: {known_keys(section)}"
    if "settings" in section.model_fields:
        hint += f"; write other settings under [{'.'.join([*sections, 'settings'])}]"
    return hint


def _section(path: tuple[str, ...], root: type[BaseModel]) -> type[BaseModel]:
    """The innermost section on the path."""
    found = root
    for name in path:
        inner = _table(found.model_fields[name].annotation) if name in found.model_fields else None
        if inner is None:
            break
        found = inner
    return found


def _table(annotation: Any) -> type[BaseModel] | None:
    """The section that a key's type names, also in `Section | None`."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel)), None)


def _is_section(path: tuple[str, ...], root: type[BaseModel]) -> bool:
    return _section(path, root) is not _section(path[:-1], root)


def _text(problem: InvalidValue) -> str:
    if problem.kind in ("model_type", "dict_type"):
        return f"should be a table: write its keys under [{'.'.join(problem.path)}]"
    return problem.text


def _quotes_hint(problem: InvalidValue) -> str:
    """The hint for surplus or missing quotes; empty if the error already names the limit."""
    if isinstance(problem.value, str) and problem.kind in ("int_type", "float_type", "bool_type"):
        return "write numbers, true and false without quotes"
    return "write text in quotes" if problem.kind in ("string_type", "path_type") else ""
