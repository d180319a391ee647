"""Checks a prompt pack before any model call: placeholders, phrases and fields of answers."""

from __future__ import annotations

from collections.abc import Mapping

from proofloop.errors import ConfigError
from proofloop.method.prompts.json_format import (
    FIELDS_OF,
    SCORE,
)
from proofloop.method.prompts.packs import AIDS, PLACEHOLDER, PromptPack
from proofloop.method.prompts.phrases import PHRASES_OF, shows_format

PLACEHOLDERS: Mapping[str, tuple[frozenset[str], ...]] = {
    "proof_generation": (frozenset({"question"}),),
    "proof_verification": (frozenset({"question", "proof"}),),
    "meta_verification": (frozenset({"question", "proof", "analysis"}),),
    "proof_refinement": (
        frozenset({"instruction", "attempts"}),
        frozenset({"question", "proof", "analysis"}),
    ),
}
"""Every template and its required placeholders (one of the sets).

`instruction` is the rendered generation prompt, `attempts` the earlier proofs with their analyses.
A template for small models shows only the first attempt and its first analysis.
"""

JUDGES = ("proof_verification", "meta_verification")
"""The templates that may also show AIDS."""

ALL_PLACEHOLDERS = frozenset({"{question}", "{proof}", "{analysis}", "{instruction}", "{attempts}"})


def check_phrases(pack: PromptPack) -> None:
    """Raises ConfigError for the first template whose sample answer lacks a phrase, or, in a pack
    that asks for JSON, a field.
    """
    if pack.answers == "json":
        return _check_fields(pack)
    for template, names in PHRASES_OF.items():
        shown = " ".join(pack.templates[template].split())
        for name in names if shows_format(shown) else ():
            phrase = getattr(pack.phrases, name)
            if phrase not in shown:
                raise ConfigError(
                    f"template {template} of prompt pack {pack.name!r} lacks {phrase!r}, which"
                    " marks a part of its answers",
                    f"set {name} under [phrases] in pack.toml to the template's own words",
                )


def _check_fields(pack: PromptPack) -> None:
    for template, names in FIELDS_OF.items():
        text = pack.templates[template]
        for name in () if "{instruction}" in text else (*names, SCORE):
            if f'"{name}"' not in text:
                raise ConfigError(
                    f'template {template} of prompt pack {pack.name!r} lacks "{name}", a field of'
                    " its answers",
                    f"ask for a JSON object with the fields {', '.join((*names, SCORE))}",
                )


def found_placeholders(template: str) -> list[str]:
    """The placeholders of a template, in order."""
    return PLACEHOLDER.findall(template)


def check_placeholders(pack: PromptPack) -> None:
    """Raises ConfigError for the first template with wrong placeholders."""
    for template, allowed in PLACEHOLDERS.items():
        found = frozenset(found_placeholders(pack.templates[template]))
        if template in JUDGES:
            found -= set(AIDS)
        if found in allowed:
            continue
        needed = min(allowed, key=lambda names: len(names ^ found))
        wrong = (
            f"lacks {_listed(needed - found)}"
            if needed - found
            else f"has placeholders that it cannot use: {_listed(found - needed)}"
        )
        raise ConfigError(
            f"template {template} of prompt pack {pack.name!r} {wrong}",
            f"use exactly {_listed(needed)}",
        )


def _listed(placeholders: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(placeholders))
