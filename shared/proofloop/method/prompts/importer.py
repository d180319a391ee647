"""Makes a prompt pack from a Python file like the official `math_templates.py`, which is parsed and
never executed.

The file assigns a dictionary of four template strings for `str.format`: a doubled brace is a
literal brace.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import string
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proofloop.errors import ConfigError
from proofloop.method.prompts.checks import (
    ALL_PLACEHOLDERS,
    PLACEHOLDERS,
    check_placeholders,
    found_placeholders,
)
from proofloop.method.prompts.packs import PromptPack
from proofloop.method.prompts.phrases import Phrases, find_phrases

_OURS = {"statement": "question", "rating": "analysis", "proofs_to_refine": "attempts"}
"""The official placeholder names that differ from proofloop's."""

MAX_FILE_BYTES = 1 << 20


def read_templates(source: str, file_name: str) -> dict[str, str]:
    """The four templates of the first dictionary literal that has them. Raises ConfigError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns about backslashes in the file
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{file_name} is not a Python file: {error}", "give the official math_templates.py"
        ) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            found = {
                key.value: _text(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            if set(found) & set(PLACEHOLDERS):
                return _complete(found, file_name)
    raise ConfigError(
        f"{file_name} has no dictionary of templates",
        f"it needs the keys {', '.join(PLACEHOLDERS)}",
    )


def import_pack(file: Path, folder: Path) -> PromptPack:
    """Write the pack to `folder`, whole or not at all. Raises ConfigError."""
    if not file.is_file():
        raise ConfigError(f"no file {file}", "give the path of a math_templates.py")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(
            f"{file} has {file.stat().st_size} bytes, the limit is {MAX_FILE_BYTES}",
            "give the template file itself",
        )
    if folder.exists():
        raise ConfigError(f"{folder} already exists", "choose another --out or remove it")
    templates = read_templates(_read(file), file.name)
    ours = {name: to_ours(text, name) for name, text in templates.items()}
    check_placeholders(PromptPack(name=folder.name, templates=ours, fenced=False))
    pack = PromptPack(
        name=folder.name, templates=ours, fenced=False, phrases=_phrases(ours, file.name)
    )
    _write(pack, folder, file.name)
    return pack


def _phrases(templates: Mapping[str, str], file_name: str) -> Phrases:
    """The phrases in the templates' sample answers. Raises ConfigError for a missing phrase."""
    try:
        return find_phrases(templates)
    except LookupError as error:
        raise ConfigError(
            f"{file_name}: {error.args[0]}",
            "put a sample answer into the template: proofloop reads answers by its headings and"
            " phrases",
        ) from error


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read: {error}", "give a Python file in UTF-8"
        ) from error


def to_ours(template: str, name: str) -> str:
    """Convert a `str.format` template: proofloop's placeholder names, single braces."""
    pieces, fields = [], []
    try:
        for literal, field, spec, conversion in string.Formatter().parse(template):
            pieces.append(literal)
            if field is not None:
                if spec or conversion:
                    raise ValueError(f"placeholder {field!r} has a format")
                fields.append(_OURS.get(field, field))
                pieces.append(f"{{{fields[-1]}}}")
    except ValueError as error:
        raise ConfigError(
            f"template {name} cannot be read: {error}",
            "double each literal brace, as for str.format",
        ) from error
    ours = "".join(pieces)
    if found_placeholders(ours) != fields:
        unknown = sorted({f"{{{field}}}" for field in fields} - ALL_PLACEHOLDERS)
        problem = (
            f"unknown placeholders: {', '.join(unknown)}"
            if unknown
            else "a literal in the form of a placeholder"
        )
        raise ConfigError(
            f"template {name} has {problem}", f"use only {', '.join(sorted(ALL_PLACEHOLDERS))}"
        )
    return ours


def _text(node: ast.expr) -> str | None:
    """The value of a string literal, stripped if `.strip()` follows it."""
    literal = node
    while (
        isinstance(literal, ast.Call)
        and isinstance(literal.func, ast.Attribute)
        and literal.func.attr == "strip"
        and not literal.args
    ):
        literal = literal.func.value
    if not isinstance(literal, ast.Constant) or not isinstance(literal.value, str):
        return None
    return literal.value if literal is node else literal.value.strip()


def _complete(found: Mapping[Any, str | None], file_name: str) -> dict[str, str]:
    templates = {}
    for name in PLACEHOLDERS:
        text = found.get(name)
        if text is None:
            raise ConfigError(
                f"{file_name} has no string literal {name!r}",
                f"it needs the keys {', '.join(PLACEHOLDERS)}",
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(
                f"template {name} has half of a surrogate pair", "write the character itself"
            )
        templates[name] = text
    return templates


def _write(pack: PromptPack, folder: Path, source: str) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        _write_files(pack, partial, source)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)  # it may not exist; report the first error
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror}", "choose another --out"
        ) from error


def _write_files(pack: PromptPack, partial: Path, source: str) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    for name, text in pack.templates.items():
        (partial / f"{name}.txt").write_text(text + "\n", "utf-8")
    safe_source = re.sub(r"[^A-Za-z0-9._-]", "_", source)
    phrases = "".join(
        f"{name} = {json.dumps(phrase, ensure_ascii=False)}\n" for name, phrase in pack.phrases
    )
    text = f"# Imported from {safe_source}\nfenced = false\n\n[phrases]\n{phrases}"
    (partial / "pack.toml").write_text(text, "utf-8")
