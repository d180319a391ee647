"""A prompt pack is a folder of four prompt templates. One pass fills all placeholders, so that
untrusted text with a placeholder in it stays as it is.

A pack with `fenced = true` puts every untrusted text into a code fence that is longer than any
fence in the text: the text cannot close its section.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from proofloop.errors import ConfigError
from proofloop.method.prompts.json_format import (
    FIELDS_OF,
    SCORE,
    AnswerFormat,
    schema_of,
    score_line,
)
from proofloop.method.prompts.phrases import MAY_BE_EMPTY, PHRASES_OF, Phrases, shows_format
from proofloop.method.prompts.reading.parsing import Reader, Reading
from proofloop.plugins import load_plugin, plugin_names
from proofloop.schema.records import Record, Score, digest

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

ENTRY_POINT_GROUP = "proofloop.prompt_packs"
"""An entry point of this group names the package, a folder, that holds pack.toml and templates."""

BUILT_IN = ("math", "math-json", "nano")
_PLACEHOLDER = re.compile(r"\{(question|proof|analysis|instruction|attempts)\}")
ALL_PLACEHOLDERS = frozenset({"{question}", "{proof}", "{analysis}", "{instruction}", "{attempts}"})


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt and the digest of its template.

    `schema`: the JSON schema of the answer, if the pack asks for JSON.
    """

    text: str
    digest: str
    schema: dict[str, Any] | None = field(default=None, compare=False)


class PromptPack(Record):
    """Four prompt templates by name, and the phrases that mark the parts of their answers.

    The run stores its pack: editing the folder later does not change a run.
    """

    name: str
    templates: dict[str, str]
    fenced: bool = True
    phrases: Phrases = Phrases()
    answers: AnswerFormat = "text"

    def digest(self, template: str) -> str:
        """The digest of a template with the phrases or the schema of its answers."""
        read_by = [getattr(self.phrases, name) for name in PHRASES_OF[template]]
        if schema := self.answer_schema(template):
            read_by = [json.dumps(schema)]
        return digest("\n".join([self.templates[template], *read_by]))

    def answer_schema(self, template: str) -> dict[str, Any] | None:
        """The JSON schema of the answers to a template; None if the pack's answers are text."""
        return schema_of(template) if self.answers == "json" else None

    def reader(self, reading: Reading = "strict") -> Reader:
        """The reader of the answers to these prompts."""
        return Reader(self.phrases, reading, self.answers)

    def evaluation(self, analysis: str, score: Score) -> str:
        """An evaluation with its score, for the prompt of a meta-verifier."""
        if self.answers == "json":
            return f"{analysis}\n\n{score_line(score)}"
        phrases = self.phrases
        boxed = f"{phrases.evaluation_score}\n\\boxed{{{score:g}}}"
        return f"{phrases.evaluation_intro}\n{analysis}\n\n{boxed}"

    def prove(self, question: str) -> Prompt:
        return self._render("proof_generation", question=question)

    def verify(self, question: str, proof: str) -> Prompt:
        return self._render("proof_verification", question=question, proof=proof)

    def judge(self, question: str, proof: str, analysis: str) -> Prompt:
        return self._render("meta_verification", question=question, proof=proof, analysis=analysis)

    def refine(self, question: str, attempts: list[tuple[str, list[str]]]) -> Prompt:
        """`attempts`: earlier proofs, each with its analyses to show; at least one of each."""
        if "{attempts}" not in self.templates["proof_refinement"]:
            proof, analyses = attempts[0]
            return self._render(
                "proof_refinement", question=question, proof=proof, analysis=analyses[0]
            )
        blocks = []
        for number, (proof, analyses) in enumerate(attempts, 1):
            reviews = "\n\n".join(
                f"### Evaluation {i}\n{self._fence(text)}" for i, text in enumerate(analyses, 1)
            )
            blocks.append(f"## Attempt {number}\n{self._fence(proof)}\n\n{reviews}")
        values = {"instruction": self.prove(question).text, "attempts": "\n\n".join(blocks)}
        return self._prompt("proof_refinement", values)

    def _render(self, template: str, **untrusted: str) -> Prompt:
        values = {name: self._fence(text) for name, text in untrusted.items()}
        return self._prompt(template, values)

    def _prompt(self, template: str, values: Mapping[str, str]) -> Prompt:
        text = _substitute(self.templates[template], values)
        return Prompt(text, self.digest(template), self.answer_schema(template))

    def _fence(self, text: str) -> str:
        text = text.strip()
        if not self.fenced:
            return text
        longest = max((len(run) for run in re.findall(r"~{3,}", text)), default=3)
        fence = "~" * (longest + 1)
        return f"{fence}\n{text}\n{fence}"


def _substitute(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def find_pack(name: str, base: Path | None = None) -> PromptPack | None:
    """Like `load_pack`, but None if the pack does not exist."""
    return load_pack(name, base) if _folder(name, base).joinpath("pack.toml").is_file() else None


def load_pack(name: str, base: Path | None = None) -> PromptPack:
    """The installed pack of that name, or the pack in that folder (relative to `base`). Raises
    ConfigError.
    """
    folder = _folder(name, base)
    if not folder.joinpath("pack.toml").is_file():
        raise _no_pack(name, folder)
    settings = _settings(_read(folder.joinpath("pack.toml"), name), name)
    templates = {}
    for template in PLACEHOLDERS:
        path = folder.joinpath(f"{template}.txt")
        if not path.is_file():
            raise ConfigError(
                f"prompt pack {name!r} lacks {template}.txt",
                f"a pack needs a .txt file for each of {', '.join(PLACEHOLDERS)}",
            )
        templates[template] = _read(path, name).strip()
    pack = PromptPack(name=name, templates=templates, **settings)
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
    """The settings in pack.toml: fences, answer format, phrases. Missing ones get defaults."""
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"pack.toml of prompt pack {name!r} is not TOML: {error}",
            "write `fenced = true` or `fenced = false`, and [phrases] that differ from the paper's",
        ) from error
    fenced = found.get("fenced", True)
    answers = found.get("answers", "text")
    phrases = found.get("phrases", {})
    where = f"in pack.toml of prompt pack {name!r}"
    if not isinstance(fenced, bool):
        raise ConfigError(f"fenced = {fenced!r} {where}", "use true or false, without quotes")
    if answers not in get_args(AnswerFormat):
        raise ConfigError(
            f"answers = {answers!r} {where}",
            f"use one of {', '.join(map(repr, get_args(AnswerFormat)))}",
        )
    if not isinstance(phrases, dict):
        raise ConfigError(f"phrases = {phrases!r} {where}", "make [phrases] a table")
    if phrases and answers == "json":
        raise ConfigError(
            f"both [phrases] and answers = 'json' are set {where}", "remove one of them"
        )
    return {"fenced": fenced, "answers": answers, "phrases": _phrases(phrases, name)}


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
    return _PLACEHOLDER.findall(template)


def check_placeholders(pack: PromptPack) -> None:
    """Raises ConfigError for the first template with wrong placeholders."""
    for template, allowed in PLACEHOLDERS.items():
        found = frozenset(found_placeholders(pack.templates[template]))
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
