"""A prompt pack is a folder of four prompt templates. One pass fills all placeholders: untrusted
text with a placeholder in it stays as it is.

A pack with `fenced = true` puts every untrusted text into a code fence that is longer than any
fence in the text: the text cannot close its section.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proofloop.method.prompts.json_format import AnswerFormat, schema_of, score_line
from proofloop.method.prompts.phrases import PHRASES_OF, Phrases
from proofloop.method.prompts.reading.parsing import Reader, Reading
from proofloop.method.scales import points_of
from proofloop.schema.records import ModelRole, Record, Score, digest

PLACEHOLDER = re.compile(
    r"\{(question|proof|analysis|instruction|attempts|reference|rubric|rival)\}"
)
AIDS = ("reference", "rubric", "rival")
"""What a judge's prompt may show beside the proof: a reference solution, a marking scheme, another
proof to compare with.
"""


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

    `full_marks`: the verifier gives points from 0 to this number; 1: it gives 0, 0.5 or 1.

    The run stores its pack: editing the folder later does not change a run.
    """

    name: str
    templates: dict[str, str]
    fenced: bool = True
    phrases: Phrases = Phrases()
    answers: AnswerFormat = "text"
    full_marks: int = 1

    def digest(self, template: str) -> str:
        """The digest of a template with the phrases or the schema of its answers."""
        read_by = [getattr(self.phrases, name) for name in PHRASES_OF[template]]
        if self.full_marks > 1 and template == "proof_verification":
            read_by.append(str(self.full_marks))
        if schema := self.answer_schema(template):
            read_by = [json.dumps(schema)]
        return digest("\n".join([self.templates[template], *read_by]))

    def answer_schema(self, template: str) -> dict[str, Any] | None:
        """The JSON schema of the answers to a template; None if the pack's answers are text."""
        return schema_of(template) if self.answers == "json" else None

    def reader(self, reading: Reading = "strict") -> Reader:
        """The reader of the answers to these prompts."""
        return Reader(self.phrases, reading, self.answers, self.full_marks)

    def evaluation(self, analysis: str, score: Score) -> str:
        """An evaluation with its score, for the prompt of a meta-verifier."""
        if self.answers == "json":
            return f"{analysis}\n\n{score_line(score)}"
        phrases, points = self.phrases, points_of(score, self.full_marks)
        boxed = f"{phrases.evaluation_score}\n\\boxed{{{points:g}}}"
        return f"{phrases.evaluation_intro}\n{analysis}\n\n{boxed}"

    def prove(self, question: str) -> Prompt:
        return self._render("proof_generation", question=question)

    @property
    def aids(self) -> tuple[str, ...]:
        """The aids that the judges' prompts show."""
        shown = self.templates["proof_verification"] + self.templates["meta_verification"]
        return tuple(aid for aid in AIDS if f"{{{aid}}}" in shown)

    def verify(self, question: str, proof: str, **aids: str | None) -> Prompt:
        return self._render("proof_verification", question=question, proof=proof, **_given(aids))

    def judge(self, question: str, proof: str, analysis: str, **aids: str | None) -> Prompt:
        return self._render(
            "meta_verification",
            question=question,
            proof=proof,
            analysis=analysis,
            **_given(aids),
        )

    def ask(self, role: ModelRole, question: str, proof: str, analysis: str) -> Prompt:
        """The prompt of a role, with the texts of these that it shows."""
        if role == "generator":
            return self.prove(question)
        if role == "verifier":
            return self.verify(question, proof)
        return self.judge(question, proof, analysis)

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


def _given(aids: Mapping[str, str | None]) -> dict[str, str]:
    """The aid. A missing one is an error: an empty section would look like a fault of the
    prompt.
    """
    return {aid: aids.get(aid) or "(none is given)" for aid in AIDS}


def _substitute(template: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)
