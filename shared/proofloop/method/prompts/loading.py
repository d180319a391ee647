"""Finds and reads prompt packs: built-in ones, those of other packages, and folders."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from proofloop.errors import ConfigError
from proofloop.method.prompts.checks import PLACEHOLDERS, check_phrases, check_placeholders
from proofloop.method.prompts.json_format import (
    AnswerFormat,
)
from proofloop.method.prompts.packs import PromptPack
from proofloop.method.prompts.phrases import MAY_BE_EMPTY, Phrases
from proofloop.plugins import load_plugin, plugin_names

ENTRY_POINT_GROUP = "proofloop.prompt_packs"
"""An entry point of this group names the package, a folder, that holds pack.toml and templates."""

BUILT_IN = (
    "math",
    "math-json",
    "math-pairwise",
    "math-points",
    "math-reference",
    "math-rubric",
    "nano",
)

MOST_MARKS = 100


def find_pack(name: str, base: Path | None = None) -> PromptPack | None:
    """Like `load_pack`, but None if the pack does not exist."""
    return load_pack(name, base) if _folder(name, base).joinpath("pack.toml").is_file() else None


def load_pack(name: str, base: Path | None = None) -> PromptPack:
    """The installed pack of that name, or the pack in that folder (relative to `base`). Raises
    ConfigError.
    """
    return _load(name, base, ())


def _load(name: str, base: Path | None, extending: tuple[str, ...]) -> PromptPack:
    """`extending`: the packs that extend this one."""
    if name in extending:
        raise ConfigError(
            f"prompt packs extend each other: {' -> '.join((*extending, name))}",
            "remove `extends` from one of them, and give it all templates",
        )
    folder = _folder(name, base)
    if not folder.joinpath("pack.toml").is_file():
        raise _no_pack(name, folder)
    settings = _settings(_read(folder.joinpath("pack.toml"), name), name)
    extended = settings.pop("extends", "")
    inherited = dict(_load(extended, base, (*extending, name))) if extended else {}
    templates = dict(inherited.get("templates", {}))
    for template in PLACEHOLDERS:
        path = folder.joinpath(f"{template}.txt")
        if path.is_file():
            templates[template] = _read(path, name).strip()
        elif not extended:
            raise ConfigError(
                f"prompt pack {name!r} lacks {template}.txt",
                f"a pack needs a .txt file for each of {', '.join(PLACEHOLDERS)}, or `extends` in"
                " pack.toml",
            )
    pack = PromptPack(**{**inherited, **settings, "name": name, "templates": templates})
    check_placeholders(pack)
    check_phrases(pack)
    return pack


def _no_pack(name: str, folder: Traversable) -> ConfigError:
    if not isinstance(folder, Path):
        return ConfigError(
            f"prompt pack {name!r} is installed without a pack.toml",
            "add pack.toml to the folder that its entry point names; the file may be empty",
        )
    return ConfigError(
        f"no prompt pack {name!r}: {folder.absolute()} has no pack.toml",
        f"use one of {', '.join(pack_names())}, or a folder from `proofloop prompts import`",
    )


def pack_names() -> tuple[str, ...]:
    """The names of all installed packs."""
    return tuple(dict.fromkeys((*BUILT_IN, *plugin_names(ENTRY_POINT_GROUP))))


def _folder(name: str, base: Path | None) -> Traversable:
    if name in BUILT_IN:
        return files("proofloop.method.prompts").joinpath("packs", name)
    package = load_plugin(ENTRY_POINT_GROUP, name)
    return (base or Path()) / name if package is None else files(package)


def _read(path: Traversable, name: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path.name} of prompt pack {name!r} is unreadable: {error}",
            "save the file as UTF-8",
        ) from error


def _settings(text: str, name: str) -> dict[str, Any]:
    """The settings that pack.toml has: fences, answer format, phrases, the pack that it extends."""
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"pack.toml of prompt pack {name!r} is not TOML: {error}",
            "write `fenced = true` or `fenced = false`, and [phrases] that differ from the paper's",
        ) from error
    fenced = found.get("fenced", True)
    answers = found.get("answers", "text")
    phrases, extends = found.get("phrases", {}), found.get("extends", "")
    full_marks = found.get("full_marks", 1)
    where = f"in pack.toml of prompt pack {name!r}"
    if not isinstance(extends, str) or extends == name:
        raise ConfigError(
            f"extends = {extends!r} {where}", "name another pack, whose templates fill the gaps"
        )
    if not isinstance(fenced, bool):
        raise ConfigError(f"fenced = {fenced!r} {where}", "use true or false, without quotes")
    if answers not in get_args(AnswerFormat):
        raise ConfigError(
            f"answers = {answers!r} {where}",
            f"use one of {', '.join(map(repr, get_args(AnswerFormat)))}",
        )
    if type(full_marks) is not int or not 1 <= full_marks <= MOST_MARKS:
        raise ConfigError(
            f"full_marks = {full_marks!r} {where}",
            f"use a whole number from 2 to {MOST_MARKS}, or leave it out for 0, 0.5 and 1",
        )
    if full_marks > 1 and answers == "json":
        raise ConfigError(
            f"both full_marks and answers = 'json' are set {where}", "remove one of them"
        )
    if not isinstance(phrases, dict):
        raise ConfigError(f"phrases = {phrases!r} {where}", "make [phrases] a table")
    if phrases and answers == "json":
        raise ConfigError(
            f"both [phrases] and answers = 'json' are set {where}", "remove one of them"
        )
    settings = {
        "fenced": fenced,
        "answers": answers,
        "phrases": _phrases(phrases, name),
        "extends": extends,
        "full_marks": full_marks,
    }
    return {key: value for key, value in settings.items() if key in found}


def _phrases(found: Mapping[str, object], pack: str) -> Phrases:
    for name, phrase in found.items():
        where = f"[phrases] {name} = {phrase!r} in pack.toml of prompt pack {pack!r}"
        if name not in Phrases.model_fields:
            raise ConfigError(
                f"{where}: unknown key", f"known here: {', '.join(Phrases.model_fields)}"
            )
        if not isinstance(phrase, str):
            raise ConfigError(f"{where} is not a text", "put it in quotes")
        if not re.search(r"[^\W\d_]", phrase) and not (phrase == "" and name in MAY_BE_EMPTY):
            raise ConfigError(f"{where} has no word", "copy the line from the template")
    return Phrases.model_validate(found)
