"""Answers as JSON objects: the fields that each template asks for, and the schema that a server can
hold a model to.

The score comes last, so that a model reasons before it grades.
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
"""The text fields of the answers to each template; a score follows them."""


def score_line(score: float) -> str:
    """What stands below an evaluation that was a field, for people and for models that judge it."""
    return f"Score: {score:g}"


def schema_of(template: str) -> dict[str, Any]:
    """The JSON schema of the answers to a template, in what OpenAI's strict mode knows of JSON
    schema.
    """
    texts = {name: {"type": "string"} for name in FIELDS_OF[template]}
    properties = {**texts, SCORE: {"type": "number", "enum": list(SCORES)}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
