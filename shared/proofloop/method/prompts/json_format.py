"""Answers as JSON objects: the fields for each template, and the schema for structured output.

The score comes last: a model reasons before it grades.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

AnswerFormat = Literal["text", "json"]

SCORE = "score"
SCORES = (0, 0.5, 1)

PROOF_FIELDS = ("solution", "self_evaluation")
EVALUATION_FIELDS = ("evaluation",)
META_FIELDS = ("analysis",)

FIELDS_OF: Mapping[str, tuple[str, ...]] = {
    "proof_generation": PROOF_FIELDS,
    "proof_verification": EVALUATION_FIELDS,
    "meta_verification": META_FIELDS,
    "proof_refinement": PROOF_FIELDS,
}
"""The text fields of the answers to each template. The score follows them."""


def score_line(score: float) -> str:
    """The line with the score below an evaluation from a JSON field."""
    return f"Score: {score:g}"


def schema_of(template: str) -> dict[str, Any]:
    """The JSON schema of the answers to a template, in the subset of OpenAI's strict mode."""
    texts = {name: {"type": "string"} for name in FIELDS_OF[template]}
    properties = {**texts, SCORE: {"type": "number", "enum": list(SCORES)}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
